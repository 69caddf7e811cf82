"""Biased and unbiased estimators of feature metrics where the truth is known.

    python studies/feature_metrics.py

CKA of independent Gaussian features, 64 samples of 2048: zero is right. Participation ratio of 1000 independent features of one
variance from 100 samples: 1000 is right.
"""

import torch

from lazyrich.measure.feature import cka, participation_ratio


def similarity(unbiased: bool, draws: int = 20, samples: int = 64, features: int = 2048) -> float:
    """Mean CKA over draws."""
    draw = torch.Generator().manual_seed(0)
    pairs = (torch.randn(2, samples, features, generator=draw, dtype=torch.float64) for _ in range(draws))
    return sum(cka(h, g, unbiased=unbiased) for h, g in pairs) / draws


def directions(unbiased: bool, draws: int = 20, samples: int = 100, features: int = 1000) -> float:
    """Mean participation ratio over draws, relative to the truth."""
    draw = torch.Generator().manual_seed(0)
    drawn = (torch.randn(samples, features, generator=draw, dtype=torch.float64) for _ in range(draws))
    return sum(participation_ratio(h, unbiased=unbiased) for h in drawn) / draws / features


def main() -> None:
    for unbiased in (True, False):
        print(
            f"unbiased {unbiased!s:5}  CKA {similarity(unbiased):+.4f}  participation ratio {directions(unbiased):.4f} of the truth"
        )


if __name__ == "__main__":
    main()
