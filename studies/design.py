"""Early feature movement, predicted from the tangent hierarchy at initialisation and measured in training.

    python studies/design.py

Digits (16 images, +-1 targets), centred networks of width 256 (base 64) trained by full-batch gradient descent until half of
the loss is learnt. Predictions: by how much the tangent kernel is about to move (``Onset.size``, from K3 and K4) and the last
hidden layer (``Onset.features``). Wanted: rank correlations above 0.9 over at least 12 settings.

Then how K3's and K4's terms start against the width: theory n^(r-1) and n^(2r-1), A = n^r (Dyer & Gur-Ari's clusters).
"""

from dataclasses import dataclass

import torch
from scipy.stats import spearmanr

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.measure import fit_slope
from lazyrich.measure.movement import feature_movement, kernel_movement
from lazyrich.scaling import Scheme
from lazyrich.tangent import contracted, onset
from lazyrich.tangent.design import initialisation


@dataclass(frozen=True)
class Setting:
    """A network, how it starts, and how it scales."""

    scheme: Scheme
    activation: str = "tanh"
    depth: int = 2
    sigma_w: float = 1.0
    sigma_b: float = 0.0

    def __str__(self) -> str:
        start = f"sigma_w {self.sigma_w:g}, sigma_b {self.sigma_b:g}"
        return f"{self.scheme.name:24} {self.activation:6} depth {self.depth}  {start}"


SETTINGS = (
    Setting(lzr.ntk()),
    Setting(lzr.ntk(), "relu", sigma_w=1.4),
    Setting(lzr.ntk(), "gelu", depth=3, sigma_w=1.5),
    Setting(lzr.ntk(), depth=4, sigma_w=1.5, sigma_b=0.3),
    Setting(lzr.ntk(), sigma_w=0.7),
    Setting(lzr.richness(0.0, gamma=0.3), depth=3, sigma_w=1.2),
    Setting(lzr.richness(0.0, gamma=3.0), "relu", depth=1, sigma_w=1.4),
    Setting(lzr.richness(0.25)),
    Setting(lzr.richness(0.25), "silu", depth=3, sigma_w=2.0),
    Setting(lzr.richness(0.25, gamma=3.0), sigma_w=2.0, sigma_b=0.5),
    Setting(lzr.mup()),
    Setting(lzr.mup(), "relu", depth=3, sigma_w=1.4),
    Setting(lzr.mup(), "gelu", depth=1),
    Setting(lzr.mup(), sigma_w=2.5, sigma_b=0.5),
    Setting(lzr.richness(0.5, gamma=4.0)),
    Setting(lzr.richness(0.5, gamma=4.0), "relu", depth=2, sigma_w=1.4),
    Setting(lzr.standard()),
    Setting(lzr.mean_field()),
)


def digits(seed: int, samples: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    data = lzr.data.load("digits").subset(samples, seed=seed)
    return data.x.double(), (data.y % 2 * 2 - 1).double()


def built(setting: Setting, width: int, seed: int) -> tuple[torch.nn.Module, dict[str, float]]:
    """The network at a width, and the rates of its tensors."""
    family = lzr.Family(lambda n: MLP(n, depth=setting.depth, outputs=1, activation=setting.activation), base=64)
    plan = lzr.plan(family, setting.scheme, "sgd", init=initialisation(family, setting.sigma_w, setting.sigma_b))
    return plan.build(width, seed).double(), {name: s.lr for name, s in plan.settings(width).items()}


def row(setting: Setting, seed: int, width: int = 256, steps: int = 40) -> tuple[float, float, float, float]:
    """Predicted kernel and feature movement, measured ones."""
    model, rates = built(setting, width, seed)
    x, y = digits(seed)
    layer = f"hidden.{setting.depth - 1}"
    predicted = onset(model, x, y, rates=rates, centred=True, features=[layer])
    centre, h0, k0 = model(x).detach().squeeze(1), hidden(model, layer, x), kernel(model, x, rates)
    groups = [{"params": [p], "lr": predicted.time / steps * rates[name]} for name, p in model.named_parameters()]
    optimizer = torch.optim.SGD(groups)
    for _ in range(50 * steps):
        residual = model(x).squeeze(1) - centre - y
        if float(residual.detach().square().sum()) <= 0.5 * float(y.square().sum()):
            break
        optimizer.zero_grad()
        (residual.square().sum() / 2).backward()
        optimizer.step()
    else:
        raise RuntimeError(f"{setting} did not learn half of its loss")
    moved = feature_movement(h0, hidden(model, layer, x)), kernel_movement(k0, kernel(model, x, rates))
    return predicted.size, predicted.features[layer], moved[1], moved[0]


def kernel(model: torch.nn.Module, x: torch.Tensor, rates: dict[str, float]) -> torch.Tensor:
    return contracted(model, x, torch.ones(len(x)), order=2, keep=2, rates=rates)


def hidden(model: torch.nn.Module, layer: str, x: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _args, out: seen.append(out.detach()))
    model(x)
    handle.remove()
    return seen[0]


def table(settings=SETTINGS, seeds: int = 2, **options) -> list[list[float]]:
    """Means over seeds, a row a setting."""
    return [
        torch.tensor([row(setting, seed, **options) for seed in range(seeds)]).log().mean(0).exp().tolist()
        for setting in settings
    ]


def correlations(rows: list[list[float]]) -> dict[str, float]:
    """Rank correlations of predictions with measurements."""
    kernel_p, feature_p, kernel_m, feature_m = zip(*rows, strict=True)
    return {
        "dNTK size with kernel movement": float(spearmanr(kernel_p, kernel_m).statistic),
        "dNTK size with feature movement": float(spearmanr(kernel_p, feature_m).statistic),
        "predicted with measured feature movement": float(spearmanr(feature_p, feature_m).statistic),
    }


def starts(r: float, widths=(64, 128, 256, 512), seeds: int = 4):
    """Slopes of K3's and K4's terms at initialisation against the width."""
    found = {}
    for seed in range(seeds):
        x, y = digits(seed, 8)
        for width in widths:
            model, rates = built(Setting(lzr.richness(r)), width, seed)
            found[seed, width] = onset(model, x, y, rates=rates, centred=True)
    third = [[found[seed, width].third for width in widths] for seed in range(seeds)]
    fourth = [[found[seed, width].fourth for width in widths] for seed in range(seeds)]
    return fit_slope(widths, third), fit_slope(widths, fourth)


def main() -> None:
    rows = table()
    print(f"{'':66} kernel: predicted measured   features: predicted measured")
    for setting, (kp, fp, km, fm) in zip(SETTINGS, rows, strict=True):
        print(f"{setting!s:66}         {kp:9.3g} {km:8.3g}             {fp:9.3g} {fm:8.3g}")
    for name, value in correlations(rows).items():
        print(f"rank correlation of {name}: {value:.3f} over {len(rows)} settings (wanted: above 0.9)")
    for r in (0.0, 0.25, 0.5):
        third, fourth = starts(r)
        print(f"r = {r}: K3 term {third} (theory {r - 1:+.2f}), K4 term {fourth} (theory {2 * r - 1:+.2f})", flush=True)


if __name__ == "__main__":
    main()
