"""What a tangent study found, and everything that its page needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lazyrich.layer import shown, spoken
from lazyrich.measure.table import table

LAZY, RICH = 0.1, 0.5  # relative movement and error, below and above which a network is called so


@dataclass(frozen=True)
class TangentResult:
    """The result of ``measure.tangents``: a small table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        title: network, scheme and data.
        moments: one record a look through training: ``step``, losses and accuracies of the network and of its linearisation
            (``linear_...``), ``error`` and ``test_error`` of the linearisation as parts of what was learnt,
            ``ntk_movement``, ``ntk_distance``, ``features`` by layer, and ``alignment`` rows by layer.
        spectra: of the tangent kernel before and after training.
        few: predictions of the truncated hierarchy on a few samples against the network's gradient flow.
        limit: the kernel at infinite width beside this one; ``reason`` where there is none.
        settings: of the run.
        reproduce: command, versions and date.
    """

    title: str
    moments: Sequence[Mapping[str, Any]]
    spectra: Sequence[Mapping[str, Any]]
    few: Mapping[str, Any]
    limit: Mapping[str, Any]
    settings: Mapping[str, Any]
    reproduce: Mapping[str, Any]

    @property
    def word(self) -> str:
        """lazy, between or rich: the larger of the kernel's movement and the linearisation's error on test samples."""
        last = self.moments[-1]
        size = max(last["ntk_movement"], last["test_error"])
        return "lazy" if size < LAZY else "rich" if size > RICH else "between"

    @property
    def peak(self) -> str:
        """The layer whose tangent kernel is aligned best with the targets after training (centred)."""
        layers = [row for row in self.moments[-1]["alignment"] if row["layer"] != "(whole)"]
        return max(layers, key=lambda row: row["centred"])["layer"]

    @property
    def sentence(self) -> str:
        """The conclusion in words."""
        first, last = self.moments[0], self.moments[-1]
        said = {
            "lazy": "This network trains as its linearisation does",
            "between": "This network leaves its linearisation, but not far",
            "rich": "This network does not train as its linearisation does",
        }[self.word]
        return (
            f"{said}: while the training loss fell from {first['loss']:.3g} to {last['loss']:.3g}, its tangent kernel moved by "
            f"{last['ntk_movement']:.1%}, and on test samples the linearised network is off by {last['test_error']:.1%} of what "
            "was learnt."
        )

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a look: features and centred alignments under ``features.LAYER`` and ``alignment.LAYER``."""
        found = []
        for moment in self.moments:
            row = {key: value for key, value in moment.items() if key not in ("features", "alignment")}
            row |= {f"features.{layer}": value for layer, value in moment["features"].items()}
            found.append(row | {f"alignment.{line['layer']}": line["centred"] for line in moment["alignment"]})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        return {
            "kind": "tangent",
            "title": self.title,
            "word": self.word,
            "sentence": self.sentence,
            "peak": self.peak,
            "moments": [dict(moment) for moment in self.moments],
            "spectra": [dict(s) for s in self.spectra],
            "few": dict(self.few),
            "limit": dict(self.limit),
            "settings": dict(self.settings),
            "reproduce": dict(self.reproduce),
        }

    def __str__(self) -> str:
        columns = {
            "step": "step",
            "loss": "loss",
            "linear_loss": "linear loss",
            "test_error": "off by (test)",
            "ntk_movement": "kernel moved",
        }
        rows = [[_cell(name, moment[name]) for name in columns] for moment in _thin(self.moments, 8)]
        lines = [self.title, self.sentence, "", *table(list(columns.values()), rows), ""]
        last, first = self.moments[-1]["alignment"], self.moments[0]["alignment"]
        layers = [
            [shown(a["layer"]), f"{b['centred']:.3f}", f"{a['centred']:.3f}", f"{a['share']:.1%}"]
            for a, b in zip(last, first, strict=True)
        ]
        lines += [*table(["alignment of", "before", "after", "of the kernel"], layers), f"peak: {spoken(self.peak)}", ""]
        lines += [self._few(), self._limit()]
        return "\n".join(lines)

    def _few(self) -> str:
        errors = ", ".join(
            f"p = {p} has ended" if error is None else f"p = {p} is off by {_percent(error)}"
            for p, error in zip(self.few["orders"], self.few["at_half"], strict=True)
        )
        on = f"{self.few['samples']} samples ({self.few['what']})"
        return f"hierarchy on {on} trained by themselves, when half of the loss is learnt: {errors}"

    def _limit(self) -> str:
        if self.limit.get("reason"):
            return f"no kernel at infinite width: {self.limit['reason']}"
        return f"tangent kernel at infinite width: {self.limit['distance']:.1%} away from this network's"


def _cell(name: str, value: float) -> str:
    if name == "step":
        return str(value)
    return _percent(value) if name in ("test_error", "ntk_movement") else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 else f"{100 * value:.1g}%"


def _thin(moments: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    last = len(moments) - 1
    return [moments[i] for i in sorted({round(k * last / (most - 1)) for k in range(most)})]
