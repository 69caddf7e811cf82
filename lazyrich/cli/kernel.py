"""``lazyrich kernel FACTORY``."""

from __future__ import annotations

import io
import math
import os
import platform
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lazyrich.cli.command import Factory, command_line, pairs, parse, progress, rules, slug
from lazyrich.cli.split import Split, few_of, split_of
from lazyrich.errors import RAISED, StoreError, UsageError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lazyrich.scaling import Plan
    from lazyrich.sweep import RunFolder

BLOCK = 250  # test samples at a time, for the progress line
CELLS = 96  # side of the matrix that the page shows
POINTS = 80  # of the spectrum that the page shows
MOMENTUM = 0.9
BATCH = 256


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def kernel(
        factory: Factory,
        data: str = "digits",
        data_root: str | None = None,
        train: tuple[int, ...] = (64, 256, 1024),
        test: int = 1000,
        w: float | None = None,
        b: float = 0.0,
        init: tuple[str, ...] = (),
        scheme: str = "ntk",
        kernel: tuple[Literal["nngp", "ntk"], ...] = ("nngp", "ntk"),
        base: int = 64,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        images: bool = False,
        noise: float = 1e-6,
        finite: Annotated[bool, tyro.conf.arg(help="train networks of finite width too, to compare with.")] = True,
        finite_width: int = 256,
        steps: int = 300,
        seeds: int = 3,
        seed: int = 0,
        explain: bool = False,
        out: Path | None = None,
    ) -> None:
        """Classify by the NNGP and NTK of a network family at infinite width, beside networks of finite width.

        Example:
            lazyrich kernel lazyrich.zoo:mlp --data digits --w 1.5 --b 0.1

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            data: digits, mnist, fashion_mnist, or module:function, with one class a sample.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            train: one or more numbers of training samples, each at least 2.
            test: number of test samples; fewer where the data has fewer left.
            w: draw weights of linear and convolutional layers with variance w/fan-in (default: as the factory draws them).
            b: and their biases with variance b; needs --w.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            scheme: ntk, standard(max_stable=True), richness(0.25): any parameterisation whose limit is a kernel.
            kernel: nngp (a Gaussian process), ntk (a trained network), or both.
            base: width at which the plan is the plain network.
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            noise: variance of the targets' noise, in units of the kernel's mean diagonal.
            finite: train networks of finite width too, to compare with.
            finite_width: their width.
            steps: their training steps, by SGD with momentum under the scheme's plan.
            seeds: networks a training size.
            seed: of the choice of samples.
            explain: print what the kernel does with every operation of the network, and stop.
            out: run folder (default: runs/kernel-...).
        """
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.lazy import kernel as make_kernel
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan
        from lazyrich.sweep import RunFolder

        _check(train, test, kernel, w, b, noise, steps, seeds, finite_width, base)
        if init and w is not None:
            raise UsageError(
                f"got --w {w:g} beside --init {' '.join(init)}, expected one of both; --init '*=he(relu)' gives either"
            )
        built = resolve(factory)
        given = Family(built, base, depth=depth, roles=pairs(roles, "roles"))
        redrawn = given if w is None else Family(_redrawn(built, w, b), base, depth=depth, roles=pairs(roles, "roles"))
        plan = make_plan(redrawn, parse_scheme(scheme), "sgd", init=rules(init))
        limit = make_kernel(plan)
        if explain:
            few = few_of(data, data_root, not images)
            _fits(plan, few, images)
            print(limit.explain(few))
            return
        split = split_of(data, data_root, sorted(set(train)), test, not images, seed)
        _fits(plan, split.test_x[:2], images, split.classes if finite else None)
        settings: dict[str, Any] = {
            "family": given.name, "network": given.fingerprint, "scheme": plan.scheme.name,
            "w": w, "b": b if w is not None else None, "base": base, "depth": depth,
            "data": split.name, "fingerprint": split.fingerprint, "train": list(split.sizes),
            "test": len(split.test_y), "kernels": list(dict.fromkeys(kernel)), "noise": noise,
            "finite width": finite_width if finite else None, "steps": steps, "seeds": seeds, "seed": seed,
            **({"init": list(init)} if init else {}),
        }  # fmt: skip
        folder = out or Path("runs") / slug("kernel", given.name, plan.scheme.name, split.name)
        store = RunFolder(folder, settings)
        with progress("kernel") as show:
            grams = _grams(limit, split, settings["kernels"], show)
            rows, rates = _kernel_rows(grams, split, noise)
        if finite:
            with progress(f"width {finite_width}") as show:
                _network_rows(rows, plan, split, rates, settings, store, show)
        result = {
            "kind": "kernel",
            "title": f"{given.name} · {plan.scheme.name} · {split.name}",
            "rows": rows,
            "spectra": [_spectrum(which, gram, split) for which, (gram, _) in grams.items()],
            "matrices": [_matrix(which, gram, split) for which, (gram, _) in grams.items()],
            "classes": split.classes,
            "settings": settings,
            "reproduce": {"command": command_line("kernel", words), "versions": _versions(), "date": date.today().isoformat()},
        }
        result["sentence"] = _sentence(rows[-1], settings)
        _save_matrices(folder / "kernel.npy", [gram for gram, _ in grams.values()])
        write_json(folder / "result.json", result)
        print(_table(result), end="\n\n")
        print(f"page: {render(result, folder / 'report.html')}")

    parse(kernel, "kernel", words)


def _check(
    train: Sequence[int], test: int, kernel: Sequence[str], w: float | None, b: float, noise: float, steps: int, seeds: int,
    finite_width: int, base: int,
) -> None:  # fmt: skip
    if not train or min(train) < 2:
        raise UsageError(f"got --train {' '.join(map(str, train))}, expected numbers of at least 2, for example 64 256 1024")
    if not kernel:
        raise UsageError("got --kernel without a name, expected nngp, ntk or both")
    for name, value in (("test", test), ("steps", steps), ("seeds", seeds)):
        if value < 1:
            raise UsageError(f"got --{name} {value}, expected at least 1")
    if finite_width < base:
        raise UsageError(f"got --finite-width {finite_width} below --base {base}; raise the one or lower the other")
    if w is None and b:
        raise UsageError(f"got --b {b:g} without --w, expected both or neither; add --w, for example --w 2.0")
    if w is not None and not (0 < w < math.inf and 0 <= b < math.inf):
        raise UsageError(f"got --w {w:g} --b {b:g}, expected variances: w positive, b not negative")
    if not 0 <= noise < math.inf:
        raise UsageError(f"got --noise {noise:g}, expected a variance: zero or positive")


def _fits(plan: Plan, x: Tensor, images: bool, classes: int | None = None) -> None:
    """Refuse, before anything long, a network that does not read these inputs, or has no output for every class."""
    model, shape = plan.build(plan.base).double(), tuple(x.shape[1:])
    try:
        outputs = _outputs(model, x)
    except RAISED as error:
        mend = "" if images or len(shape) != 1 else ", --images gives the network images"
        raise UsageError(
            f"the network does not take inputs of shape {shape}: {first_line(error)}; give data of the shape that it "
            f"reads{mend}"
        ) from error
    if classes is not None and tuple(outputs.shape[1:]) != (classes,):
        raise UsageError(
            f"got a network with outputs {tuple(outputs.shape[1:])} for {classes} classes, expected ({classes},); give "
            "it that many outputs, or compare with no finite network (--no-finite)"
        )


def _redrawn(factory: Callable[..., nn.Module], w: float, b: float) -> Callable[..., nn.Module]:
    """The factory with its linear and convolutional layers drawn anew."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    def build(*arguments: int) -> nn.Module:
        model = factory(*arguments)
        for layer in model.modules() if isinstance(model, nn.Module) else ():
            if isinstance(layer, nn.Linear | _ConvNd):
                weight = layer.weight.transpose(0, 1) if getattr(layer, "transposed", False) else layer.weight
                nn.init.normal_(layer.weight, 0.0, math.sqrt(w / weight[0].numel()))
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, 0.0, math.sqrt(b)) if b else nn.init.zeros_(layer.bias)
        return model

    build.__name__ = getattr(factory, "__name__", "network")
    return build


def _grams(limit: Any, split: Split, kernels: Sequence[str], show: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every kernel its Gram of the training samples, and of test with training samples."""
    import torch

    blocks = split.test_x.split(BLOCK)
    show(0, len(blocks) + 1, f"{len(split.x)} training samples")
    own = limit(split.x, get=kernels)
    if own[0].dim() != 2:
        raise UsageError(f"got a network with outputs at {tuple(own[0].shape[2:])} positions, expected one vector a sample")
    cross = []
    for i, block in enumerate(blocks, start=1):
        show(i, len(blocks) + 1, "test samples")
        cross.append(limit(block, split.x, get=kernels))
    show(len(blocks) + 1, len(blocks) + 1, "done")
    return {name: (own[i], torch.cat([c[i] for c in cross])) for i, name in enumerate(kernels)}


def _kernel_rows(
    grams: dict[str, tuple[Tensor, Tensor]], split: Split, noise: float
) -> tuple[list[dict[str, Any]], dict[int, float]]:
    """Accuracies at every training size, and the largest learning rate of the tangent kernel there."""
    from lazyrich.inference import max_learning_rate, one_hot_targets, posterior

    targets = one_hot_targets(split.y, split.classes)
    rows, rates = [], {}
    for n in split.sizes:
        row: dict[str, Any] = {"train": n, "network": None}
        for name, (own, cross) in grams.items():
            found = posterior(own[:n, :n], targets[:n], cross[:, :n], noise=noise, relative=True, jitter="auto")
            row[name] = float((found.mean.argmax(1) == split.test_y).double().mean())
        widest = grams["ntk" if "ntk" in grams else "nngp"][0][:n, :n]
        rates[n] = max_learning_rate(widest, loss="mean", momentum=MOMENTUM)
        rows.append(row)
    return rows, rates


def _network_rows(
    rows: list[dict[str, Any]], plan: Plan, split: Split, rates: dict[int, float], settings: dict[str, Any],
    store: RunFolder, show: Any,
) -> None:  # fmt: skip
    """Train the networks of finite width; finished ones are kept in the run folder."""
    from lazyrich.sweep import kept

    jobs = [(row, seed) for row in rows for seed in range(settings["seeds"])]
    found: dict[int, list[dict[str, float]]] = {}
    for done, (row, seed) in enumerate(jobs):
        show(done, len(jobs), f"{row['train']} samples, network {seed + 1}")
        asked = (row["train"], settings["finite width"], rates[row["train"]], settings["steps"], seed)
        trial = kept(store, f"train{row['train']}-seed{seed}", lambda asked=asked: _train(plan, split, *asked))
        found.setdefault(row["train"], []).append(trial)
    for row in rows:
        scores = [trial["accuracy"] for trial in found[row["train"]]]
        row["network"] = {
            "mean": sum(scores) / len(scores), "low": min(scores), "high": max(scores),
            "fitted": min(trial["fitted"] for trial in found[row["train"]]),
        }  # fmt: skip


def _train(plan: Plan, split: Split, n: int, width: int, bound: float, steps: int, seed: int) -> dict[str, float]:
    """One network by SGD with momentum at a fraction of its limit's largest learning rate, less where it diverges.

    What it computes at initialisation is taken off before and after, as the kernels' mean prediction has no such part.
    """
    import torch

    from lazyrich.data import ArrayData
    from lazyrich.inference import one_hot_targets
    from lazyrich.train import loss_for, train

    _, loss = loss_for("half_mse", split.x)
    x, test_x = (t.float() if t.is_floating_point() else t for t in (split.x[:n], split.test_x))
    targets = one_hot_targets(split.y[:n], split.classes).float()
    for fraction in (0.25, 0.08, 0.02):
        model = plan.build(width, seed)
        start, test_start = _outputs(model, x), _outputs(model, test_x)
        data = ArrayData(x, targets + start)
        optimizer = torch.optim.SGD(plan.param_groups(model, fraction * bound), momentum=MOMENTUM)
        outcome = train(model, optimizer, lambda step, data=data: data.batch(BATCH, step, seed), loss, steps, seed=seed)
        if not outcome.diverged and outcome.losses[-1] < 2 * outcome.losses[0]:
            break
    right = (_outputs(model, test_x) - test_start).argmax(1) == split.test_y
    fitted = (_outputs(model, x) - start).argmax(1) == split.y[:n]
    return {"accuracy": float(right.double().mean()), "fitted": float(fitted.double().mean()), "loss": outcome.losses[-1]}


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    import torch

    model.eval()
    with torch.no_grad():
        found = [model(block) for block in x.split(BATCH)]
    model.train()
    if not isinstance(found[0], torch.Tensor):
        raise UsageError(
            f"the network returns {type(found[0]).__name__}, expected one tensor (N, ...); let the factory wrap it in a module "
            "that returns the output that you mean"
        )
    return torch.cat(found)


def _spectrum(name: str, gram: Tensor, split: Split) -> dict[str, Any]:
    """The spectrum of a training Gram, thinned to what a figure shows."""
    from lazyrich.inference import one_hot_targets, spectrum

    found = spectrum(gram, one_hot_targets(split.y, split.classes))
    n, total = len(gram), float(found.eigenvalues.sum())
    modes = sorted({min(n, round(n ** (i / (POINTS - 1)))) for i in range(POINTS)})
    values, cumulative = found.eigenvalues.tolist(), found.cumulative.tolist()  # type: ignore[union-attr]
    return {
        "kernel": name, "samples": n, "modes": modes, "eigenvalues": [values[i - 1] / total for i in modes],
        "cumulative": [cumulative[i - 1] for i in modes], "top": values[0] / total,
        "effective_rank": found.effective_rank, "alignment": found.alignment,
    }  # fmt: skip


def _matrix(name: str, gram: Tensor, split: Split) -> dict[str, Any]:
    """The correlations of a training Gram, sorted by class and averaged over cells, the diagonal left out: None if no more is."""
    import torch

    order = torch.argsort(split.y, stable=True)
    root = gram.diagonal().sqrt()
    whole = (gram / root[:, None] / root[None, :])[order][:, order].fill_diagonal_(0.0)
    n, cells = len(gram), min(len(gram), CELLS)
    at = torch.arange(n) * cells // n
    sums = torch.zeros(cells, n, dtype=whole.dtype).index_add_(0, at, whole).T
    sums = torch.zeros(cells, cells, dtype=whole.dtype).index_add_(0, at, sums)
    size = torch.bincount(at, minlength=cells).to(whole)
    counts = size[:, None] * size[None, :] - torch.diag(size)
    shown = [
        [round(v, 4) if n > 0 else None for v, n in zip(*row, strict=True)]
        for row in zip((sums / counts.clamp(min=1)).tolist(), counts.tolist(), strict=True)
    ]
    bounds = [int((split.y[order] < c).sum()) / n for c in range(split.classes + 1)]
    return {"kernel": name, "cells": shown, "bounds": bounds}


def _sentence(row: dict[str, Any], settings: dict[str, Any]) -> str:
    """The conclusion, with the resolution of the test set."""
    names = settings["kernels"]
    best = max(names, key=lambda name: row[name])
    where, tests = f"on {row['train']} training samples", settings["test"]
    if row["network"] is None:
        others = "".join(f", the {name.upper()} {row[name]:.1%}" for name in names if name != best)
        return (
            f"At infinite width the {best.upper()} of this network, given {row['train']} training samples, classifies "
            f"{row[best]:.1%} of {tests} test samples{others}."
        )
    p, q = row["network"]["mean"], row[best]
    margin = 2 * math.sqrt((p * (1 - p) + q * (1 - q)) / tests + 1e-12)
    gap, width = p - q, settings["finite width"]
    both = f"{p:.1%} at width {width} against {q:.1%} for the {best.upper()}"
    if row["network"]["fitted"] < 0.99:
        return f"Width {width} is not trained to the end ({row['network']['fitted']:.0%} fitted; raise --steps): {both}."
    if abs(gap) <= margin:
        undecided = f"the {tests} test samples cannot tell them apart"
        return f"No difference between the finite network and its kernel is shown {where}, {both}: {undecided}."
    if gap > 0:
        return f"The finite network beats its kernel {where}, {both}: it does not train as a fixed kernel would."
    return f"The kernel beats the finite network {where}, {both}: wider networks come closer to it."


def _table(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    names, width = result["settings"]["kernels"], result["settings"]["finite width"]
    header = ["train", *names, *([f"width {width}"] if width else [])]
    rows = []
    for row in result["rows"]:
        rows.append([str(row["train"]), *(f"{row[n]:.1%}" for n in names), *([_range(row["network"])] if width else [])])
    sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    flush = len(names) + 1  # numbers to the right, the range to the left
    lines = [
        "  ".join(cell.rjust(n) if i < flush else cell for i, (cell, n) in enumerate(zip(row, sizes, strict=True)))
        for row in [header, *rows]
    ]
    rule = "-" * max(map(len, lines))
    spectra = [
        f"{s['kernel']:4} on {s['samples']} samples: first mode {s['top']:.1%} of the trace, "
        f"effective rank {s['effective_rank']:.1f}, target alignment {s['alignment']:.3f}"
        for s in result["spectra"]
    ]
    return "\n".join([result["title"], result["sentence"], rule, *lines, rule, *spectra])


def _range(network: dict[str, float]) -> str:
    low, high = network["low"], network["high"]
    return f"{network['mean']:.1%}" + (f" ({low:.1%} to {high:.1%})" if high > low else "")


def _save_matrices(path: Path, grams: Sequence[Tensor]) -> None:
    """The training Grams, (kernels, N, N) in the order of the settings, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.stack([gram.numpy() for gram in grams]), allow_pickle=False)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(buffer.getvalue())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; give a folder that you may write to") from error
    finally:
        part.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import torch

    from lazyrich import __version__

    return {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()}
