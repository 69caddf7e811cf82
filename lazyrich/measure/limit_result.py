"""What a plan's limit and its finite networks did, and everything that their page needs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lazyrich.layer import spoken
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.table import table

LAZY, RICH = 0.05, 0.5  # movement of the last layer's feature kernel, below and above which training is called so
POOR = 0.1  # sampling error of the limit's outputs, above which nothing is to be read off it
LEVEL = -0.1  # a slope above it halves a distance over a thousandfold width
ROUNDING = 1e-10  # linear networks come out exact


@dataclass(frozen=True)
class LimitResult:
    """The result of ``lzr.limit``: a small table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        title: network, scheme and data.
        theory: the limit: ``lr``, ``gamma0``, ``loss`` with ``loss_error``, ``fixed_loss`` of a kernel that does not move and how
            far its outputs are off, ``accuracy`` (Monte-Carlo error of the outputs), and ``layers`` with kernels and densities.
        runs: one record a finite network: ``width``, ``seed``, ``loss``, ``off`` (its outputs against the limit's) and ``layers``.
        settings: of the run.
        reproduce: command, versions and date.
    """

    title: str
    theory: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    reproduce: Mapping[str, Any]

    @property
    def word(self) -> str:
        """lazy, between or rich: how far the last layer's feature kernel moves at infinite width."""
        moved = self.theory["layers"][-1]["movement"]
        return "lazy" if moved < LAZY else "rich" if moved > RICH else "between"

    @property
    def loss(self) -> dict[str, list[float]]:
        """Training losses at every step: ``limit``, ``fixed`` kernel, and a mean a width."""
        found = {"limit": list(self.theory["loss"]), "fixed": list(self.theory["fixed_loss"])}
        return found | {str(line["width"]): line["loss"] for line in self.widths if line["loss"]}

    @cached_property
    def widths(self) -> list[dict[str, Any]]:
        """One record a width: means over its networks, and errors against the limit.

        ``off`` is the mean over single networks of ||f_n - f|| / ||f|| over all steps and samples, ``mean_off`` the same of the
        mean network; ``kernels`` holds the same a layer, for feature kernels of the training samples at the end; ``alignment`` is
        with the targets.
        """
        return [self._width(width) for width in dict.fromkeys(run["width"] for run in self.runs)]

    @cached_property
    def slope(self) -> Slope:
        """Power of the width with which single networks' outputs approach the limit; -1/2 in theory."""
        widths = list(dict.fromkeys(run["width"] for run in self.runs))
        seeds = sorted({run["seed"] for run in self.runs})
        off = {(run["seed"], run["width"]): run.get("off", float("nan")) for run in self.runs}
        return fit_slope(widths, [[off[seed, width] for width in widths] for seed in seeds])

    @property
    def sentence(self) -> str:
        """The conclusion in words."""
        theory, last = self.theory, self.theory["layers"][-1]
        layer = spoken(last["layer"])
        moved = f"{last['movement']:.0%}" if last["movement"] > 0.01 else "less than 1%"
        fixed = (
            f"a kernel that stays would be off by {theory['fixed_off']:.0%} of the outputs"
            if theory["fixed_off"] > 0.02
            else "a kernel that stays predicts the same"
        )
        return (
            f"At infinite width {len(theory['loss']) - 1} steps take the loss from {theory['loss'][0]:.3g} to "
            f"{theory['loss'][-1]:.3g} while the feature kernel of {layer} moves by {moved}; {fixed}. {self._approach()}"
        )

    def _approach(self) -> str:
        widest, accuracy = self.widths[-1], self.theory["accuracy"]
        if widest["off"] is None:
            return f"The networks of width {widest['width']} diverged at this learning rate."
        off = widest["off"]
        far = f"{off:.1%} from the limit" if off < 10 else f"{off:.3g} times the limit's outputs away from them"
        said = f"Networks of width {widest['width']} are {far}"
        if not accuracy <= POOR:
            return f"But the limit is known only to {accuracy:.0%}: lower lr or raise neurons. {said}, as far as it is known."
        return f"{said}{self._initial(widest['width'])}{self._manner()}."

    def _manner(self) -> str:
        """How the distance changes with the width, as far as the interval of its slope says it."""
        slope = self.slope
        if slope.high < 0:
            return f", and approach it as width^({slope})"
        if slope.low > LEVEL:
            return f", and do not approach it: the distance goes as width^({slope})"
        return "; too few widths and seeds to tell how they approach it"

    def _initial(self, width: int) -> str:
        """Says so where initial outputs, which the limit does not have, are most of the distance, and as large as all it learns."""
        wanted = _matrix(self.theory["outputs"])
        for run in self.runs:
            if run["width"] == width and run["diverged"] is None:
                found = _matrix(run["outputs"])
                started, off = float((found[0] - wanted[0]).norm()) * len(found) ** 0.5, float((found - wanted).norm())
                if started > max(0.5 * off, float(wanted.norm())):
                    return ", most of it initial outputs that the limit does not have (--centred, centred=True, takes them off)"
        return ""

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a width."""
        found = []
        for line in self.widths:
            row = {key: line[key] for key in ("width", "networks", "diverged", "off", "mean_off", "test_loss")}
            row["last_loss"] = line["loss"][-1] if line["loss"] else None
            row |= {f"kernel.{layer}": value for layer, value in line["kernels"].items()}
            found.append(row | {f"alignment.{layer}": value[0] for layer, value in line["alignment"].items()})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        theory = {key: value for key, value in self.theory.items() if key != "outputs"}
        slope = {key: _finite(getattr(self.slope, key)) for key in ("value", "low", "high")}
        return {
            "kind": "limit",
            "title": self.title,
            "word": self.word,
            "sentence": self.sentence,
            "theory": theory,
            "widths": self.widths,
            "slope": slope | {"points": self.slope.points},
            "widest": self._widest(),
            "settings": dict(self.settings),
            "reproduce": dict(self.reproduce),
        }

    def __str__(self) -> str:
        theory = self.theory
        layers = [layer["layer"] for layer in theory["layers"]]
        header = ["width", "last loss", "outputs off", "their mean", *(f"kernel {spoken(name)}" for name in layers)]
        rows = [
            [
                str(line["width"]), _number(line["loss"][-1] if line["loss"] else None), _percent(line["off"]),
                _percent(line["mean_off"]), *(_percent(line["kernels"].get(name)) for name in layers),
            ]
            for line in self.widths
        ]  # fmt: skip
        errors = [_percent(layer["kernel_error"]) for layer in theory["layers"]]
        rows.append(
            ["limit", _number(theory["loss"][-1]), f"± {_percent(theory['accuracy'])}", "", *(f"± {e}" for e in errors)]
        )
        rows.append(["fixed kernel", _number(theory["fixed_loss"][-1]), _percent(theory["fixed_off"]), "", *[""] * len(layers)])
        moves = [
            [
                layer["layer"], _percent(layer["movement"]), f"{layer['start_alignment']:.3f}", f"{layer['alignment']:.3f}",
                *(f"{line['alignment'][layer['layer']][0]:.3f}" if line["alignment"] else "-" for line in self.widths),
            ]
            for layer in theory["layers"]
        ]  # fmt: skip
        columns = ["layer", "moves", "aligned before", "after", *(f"width {line['width']}" for line in self.widths)]
        return "\n".join([self.title, self.sentence, "", *table(header, rows), "", *table(columns, moves)])

    def _width(self, width: int) -> dict[str, Any]:
        every = [run for run in self.runs if run["width"] == width]
        runs = [run for run in every if run["diverged"] is None]
        found: dict[str, Any] = {"width": width, "networks": len(every), "diverged": len(every) - len(runs)}
        if not runs:
            empty = {"loss": [], "off": None, "offs": [], "mean_off": None, "test_loss": None, "kernels": {}, "alignment": {}}
            return found | empty
        mean = torch.stack([_matrix(run["outputs"]) for run in runs]).mean(0)
        wanted = _matrix(self.theory["outputs"])
        kernels, alignment, own = {}, {}, slice(len(self.theory["targets"]))
        for i, layer in enumerate(self.theory["layers"]):
            limit = _matrix(layer["kernel"])[own, own]
            off = [float((_matrix(run["layers"][i]["kernel"])[own, own] - limit).norm() / limit.norm()) for run in runs]
            aligned = [run["layers"][i]["alignment"] for run in runs]
            kernels[layer["layer"]] = statistics.mean(off)
            alignment[layer["layer"]] = [statistics.mean(aligned), statistics.stdev(aligned) if len(aligned) > 1 else 0.0]
        tests = [run["test_loss"] for run in runs]
        return found | {
            "loss": torch.tensor([run["loss"] for run in runs], dtype=torch.float64).mean(0).tolist(),
            "off": statistics.mean(run["off"] for run in runs),
            "offs": [run["off"] for run in runs],
            "mean_off": float((mean - wanted).norm() / wanted.norm()),
            "test_loss": None if tests[0] is None else statistics.mean(tests),
            "kernels": kernels,
            "alignment": alignment,
        }

    def _widest(self) -> dict[str, Any]:
        """Mean kernels and densities of the widest networks that did not diverge."""
        fine = [run for run in self.runs if run["diverged"] is None]
        width = max((run["width"] for run in fine), default=None)
        runs = [run for run in fine if run["width"] == width]
        layers = []
        for i, layer in enumerate(self.theory["layers"] if runs else []):
            means = {
                key: torch.stack([_matrix(run["layers"][i][key]) for run in runs]).mean(0).tolist()
                for key in ("kernel", "before", "after")
            }
            layers.append({"layer": layer["layer"], **means})
        return {"width": width, "layers": layers}


def _matrix(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _finite(value: float) -> float | None:
    return value if abs(value) < 1e300 else None


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    if value is not None and value < ROUNDING:
        return "0%"
    return "-" if value is None else f"{value:.1%}" if value >= 0.001 else f"{100 * value:.1g}%"
