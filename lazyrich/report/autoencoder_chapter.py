"""One study of autoencoders as a part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from typing import Any

from lazyrich.report import autoencoder_figure as figure
from lazyrich.report.autoencoder_result import AutoencoderCell, AutoencoderPage
from lazyrich.report.chapter import swatch_of
from lazyrich.report.number import DASH, brief, margin, signed
from lazyrich.report.transfer_figure import scheme_style

ROWS = 40
SURE = 0.01  # p value below which the headline names a cause
COLUMNS = (
    ("unexplained", "unexplained"), ("probe", "probe"), ("delay", "delay"), ("encoder early", "encoder moved early"),
    ("code early", "code moved early"), ("mirror before", "mirror at start"), ("mirror after", "mirror at end"),
    ("dimension", "code dimension"), ("stretch", "stretch"), ("radius", "spectral radius"), ("settled", "settled"),
)  # fmt: skip
VARIATIONAL = (
    ("active latents", "active latents"),
    ("code rate", "rate of the code, nats"),
    ("evidence bound", "evidence bound, nats"),
)


def autoencoder_chapter(result: AutoencoderPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one study; ``key`` is what all of its ids begin with."""
    starts = list(dict.fromkeys(c.start for c in sorted(result.cells, key=lambda c: c.start)))
    best = [next(c for c in result.cells if c.start == start) for start in starts]
    own = {name for c in result.cells for s in c.seeds for name in s} - {name for name, _ in (*COLUMNS, *VARIATIONAL)}
    variational = [(name, word) for name, word in VARIATIONAL if any(c.known(name) for c in result.cells)]
    columns = [*COLUMNS, *variational, *((name, name) for name in sorted(own & _added(result)))]
    return {
        "key": key,
        "template": "autoencoder.html.j2",
        "verb": "autoencoder",
        "result": result,
        "starts": [swatch_of(start, *scheme_style(i)) for i, start in enumerate(starts)],
        "linear_swatch": swatch_of("", "theory", "", (0, (1, 2))) if any(v is not None for v in result.linear.values()) else None,
        "panels": _panels(result, starts, key),
        "bests": [_best(c, f"{key}-b{i}") for i, c in enumerate(best) if c.seeds],
        "coded": any(c.code for c in result.cells),
        "columns": [word for _, word in columns],
        "rows": [_row(c, [name for name, _ in columns]) for c in result.cells[:ROWS]],
        "left_out": max(0, len(result.cells) - ROWS),
        "linear": [("" if code == "None" else f"code {code}: ") + _part(value) for code, value in result.linear.items()],
        "movements": [
            {"start": m.start, "scheme": m.scheme, "optimizer": m.optimizer, "value": signed(m.value), "theory": signed(m.theory),
             "told": m.told,
             "margin": margin(None if m.low is None or m.high is None else (m.high - m.low) / 2)}
            for m in result.movements
        ],
        "causes": [{"name": n, "rank": signed(r), "p": brief(p), "networks": k} for n, r, p, k in result.causes],
    }  # fmt: skip


KNOWN = {"decoder early", "encoder moved", "code moved", "mirror shared"}  # in the data, not in the table


def _added(result: AutoencoderPage) -> set[str]:
    """Metrics that the user added, and the one that goes with success most."""
    named = {name for name, _, p, _ in result.causes[:1] if p is not None and p < SURE}  # by the headline
    return {name for c in result.cells for s in c.seeds for name in s} - (KNOWN - named)


def _panels(result: AutoencoderPage, starts: list[str], key: str) -> list[dict[str, str]]:
    """A row of figures for each scheme, optimizer and code."""
    groups = sorted({(c.scheme, c.optimizer, c.code) for c in result.cells})
    panels = []
    for i, (scheme, optimizer, code) in enumerate(groups):
        own = [c for c in result.cells if (c.scheme, c.optimizer, c.code) == (scheme, optimizer, code)]
        widest = [c for c in own if c.width == max(o.width for o in own)]
        level = result.linear.get(code or "None")
        panels.append(
            {
                "name": f"{scheme} · {optimizer}" + (f" · code {code}" if code else ""),
                "unexplained": figure.against_width(own, "unexplained", "variance unexplained", starts, level, f"{key}-u{i}"),
                "movement": figure.against_width(
                    own, "encoder early", "early movement of the encoder", starts, None, f"{key}-m{i}"
                ),
                "losses": figure.losses(widest, starts, f"{key}-l{i}"),
                "widest": str(widest[0].width),
            }
        )
    return panels


def _best(cell: AutoencoderCell, key: str) -> dict[str, str]:
    return {
        "name": f"{cell.start} · {cell.scheme} · {cell.optimizer} · width {cell.width}"
        + (f" · code {cell.code}" if cell.code else ""),
        "inputs": figure.picture(cell.inputs),
        "outputs": figure.picture(cell.outputs),
        "scatter": figure.scatter(cell, key) if cell.scatter else "",
    }


def _row(cell: AutoencoderCell, columns: list[str]) -> dict[str, Any]:
    return {
        "name": cell.start,
        "scheme": cell.scheme,
        "optimizer": cell.optimizer,
        "width": str(cell.width),
        "code": cell.code,
        "lr": brief(cell.lr) + (" (end)" if cell.edge else ""),
        "values": [(_part if name == "unexplained" else brief)(cell.mean(name), "undefined") for name in columns],
    }


def _part(value: float | None, absent: str = DASH) -> str:
    """A part of the variance in percent, as the sentence above has it."""
    return absent if value is None else f"{brief(100 * value)}%"
