"""Phase diagrams: how far a correlation travels at every initialisation, and the edge of chaos across the plane.

    python studies/phase_diagram.py --out runs/phase_diagram.png

Expected (Schoenholz et al. 2017, arXiv:1611.01232): the depth scale of correlations diverges along a line chi_perp(q*) = 1; tanh
is critical at sigma_b^2 = .05 with sigma_w^2 = 1.7610, q* = .570; erf at sigma_b = 0 with sigma_w^2 = pi / 4.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lazyrich.errors import KernelError
from lazyrich.gaussian import critical, signal

BIASES = (0.01, 0.05, 0.1, 0.3)
PUBLISHED = {"tanh": (1.4242, 1.7610, 1.9861, 2.5051)}  # sigma_w^2 at these biases
TANH_VARIANCES = (0.273, 0.570, 0.806, 1.461)
DEEPEST = 300.0


def depth_scales(activation: str, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """xi_c at every point of the plane, at most ``DEEPEST``; rows are biases."""
    found = np.full((len(biases), len(weights)), np.nan)
    for i, bias in enumerate(biases):
        for j, weight in enumerate(weights):
            try:
                found[i, j] = min(signal(activation, float(weight), float(bias)).depth_scales()[1], DEEPEST)
            except KernelError:  # the variance grows without bound
                continue
    return found


def edge(activation: str, biases: np.ndarray) -> np.ndarray:
    """sigma_w^2 on the edge of chaos at every bias."""
    return np.array([critical(activation, bias=float(b)).weight for b in biases])


def draw(activations: tuple[str, ...], size: int, path: Path) -> None:
    """One plane an activation, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(activations), 4.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(activations), squeeze=False)[0]
    for ax, activation in zip(axes, activations, strict=True):
        weights, biases = np.linspace(0.3, 4.0, size), np.linspace(0.0, 0.5, size // 2)
        scales = depth_scales(activation, weights, biases)
        shown = ax.pcolormesh(
            weights, biases, np.log10(scales), cmap="cividis", shading="nearest", vmin=0, vmax=np.log10(DEEPEST)
        )
        line = np.linspace(0.0, 0.5**0.5, 40) ** 2
        ax.plot(edge(activation, line), line, color="white", linewidth=2.2)
        for bias, weight in zip(BIASES, PUBLISHED.get(activation, ()), strict=False):
            ax.plot(weight, bias, "o", markersize=7, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.6)
        ax.text(0.03, 0.94, "ordered: gradients vanish", color="white", transform=ax.transAxes, va="top")
        ax.text(0.97, 0.06, "chaotic: gradients explode", color="white", transform=ax.transAxes, ha="right")
        ax.set(title=activation, xlabel="weight variance σ_w²", ylabel="bias variance σ_b²")
    bar = figure.colorbar(shown, ax=axes, ticks=[0, 1, 2, np.log10(DEEPEST)])
    bar.set_label("depth scale of correlations (layers)")
    bar.ax.set_yticklabels(["1", "10", "100", "300"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/phase_diagram.png"))
    parser.add_argument("--size", type=int, default=48, help="points along sigma_w^2")
    words = parser.parse_args()
    print(f"{'tanh':6}{'sigma_b^2':>10}{'sigma_w^2':>11}{'published':>11}{'q*':>8}{'published':>11}{'xi_c':>10}")
    for bias, weight, variance in zip(BIASES, PUBLISHED["tanh"], TANH_VARIANCES, strict=True):
        point = critical("tanh", bias=bias)
        scale = signal("tanh", point.weight, bias).depth_scales()[1]
        print(f"{'':6}{bias:10}{point.weight:11.4f}{weight:11.4f}{point.variance:8.3f}{variance:11.3f}{scale:10.2g}")
    print(f"erf at sigma_b = 0: sigma_w^2 = {critical('erf').weight:.6f}, expected pi/4 = {np.pi / 4:.6f}")
    draw(("tanh", "erf"), words.size, words.out)
    print(f"figure: {words.out}")


if __name__ == "__main__":
    main()
