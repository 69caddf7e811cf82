"""The probe of a coordinate check: how far every unit's output moves on a fixed batch, and by whose doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.functional import functional_call
from lazyrich.measure.decompose import from_corners
from lazyrich.measure.watch import Call, State, capture, first_float, fresh_buffers, loose_tensors, state_of, still
from lazyrich.train import Loss, Run
from lazyrich.train.loop import value_at

Record = dict[str, float]
FUNCTION = "(function)"  # the key of the network's own output, where no unit returns it


@dataclass
class UpdateProbe:
    """Records, for every unit and at the given steps, what moved since initialisation.

    Quantities (root mean square per coordinate unless said otherwise): ``level`` of the output at initialisation,
    ``update`` of the output since then, its terms ``layer``, ``passthrough`` and ``interaction``; ``uuc``, the mean over
    samples of |delta . Delta h| with delta the per-sample gradient at initialisation, and ``signed uuc``, that without the
    absolute value, above zero where a layer's movement raises the loss; ``max``, layer over update. The first
    step is recorded with ``update`` and both ``uuc`` only, the last with all. Parameters that belong to no unit are recorded by
    name with their own change as ``layer``. Where the network returns something that no unit returned (a tied readout done
    by hand, a product of features), its output is recorded as ``(function)``.

    Attributes:
        x: the fixed batch; a part of the training batch, so that gradients and features have had a chance to align.
        y: its targets.
        loss: averaged over the batch.
        steps: the steps at which to look; the last gets the decomposition.
    """

    x: Any
    y: Tensor
    loss: Loss
    steps: Sequence[int]
    order: list[str] = field(default_factory=list)
    records: dict[int, dict[str, Record]] = field(default_factory=dict)
    _start: State = field(default_factory=dict)
    _calls: dict[str, Call] = field(default_factory=dict)
    _delta: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, run: Run) -> None:
        """Remember the untrained network, its calls on the batch and the gradients at their outputs."""
        self._start = state_of(run.model)
        # some leaf must require grad for the graph to exist; only the gradients of activations are taken
        weights = {name for name, _ in run.model.named_parameters()}
        live = {k: v.requires_grad_() if k in weights else v for k, v in self._start.items()}
        output, calls = capture(run.model, live, self.x, grad=True)
        reached = {
            key: call.output for key, call in calls.items() if call.output.requires_grad
        }  # not below no_grad() or detach()
        loss = value_at(run.model, output, self.y, self.loss)
        grads = torch.autograd.grad(loss, list(reached.values()), allow_unused=True) if reached else ()
        self._start = {k: v.detach() for k, v in self._start.items()}
        self._delta = {key: g * len(self.y) for key, g in zip(reached, grads, strict=True) if g is not None}
        self._calls = {key: _still(call) for key, call in calls.items()}
        self.order = list(calls) + loose_tensors(run.model)
        function = first_float(output).detach()
        if not any(_same(function, call.output) for call in self._calls.values()):
            self.order.append(FUNCTION)
            self._calls[FUNCTION] = Call((), {}, function)

    def after(self, run: Run) -> None:
        """Record the steps asked for."""
        if run.step in self.steps:
            now = {k: v.detach() for k, v in [*run.model.named_parameters(), *run.model.named_buffers()]}
            output, calls = capture(run.model, now, self.x)
            full = run.step == max(self.steps)
            self.records[run.step] = {
                **{key: self._record(run.model, key, call, now, full) for key, call in calls.items()},
                **{name: _loose(self._start[name], now[name]) for name in loose_tensors(run.model)},
            }
            if FUNCTION in self._calls:
                self.records[run.step][FUNCTION] = _whole(self._calls[FUNCTION].output, first_float(output))

    def _record(self, model: nn.Module, key: str, call: Call, now: State, full: bool) -> Record:
        old = self._calls[key]
        update = call.output - old.output
        record = {"level": rms(old.output), "update": rms(update)}
        if key in self._delta:
            product = (self._delta[key] * update).flatten(1).sum(1)
            record |= {"uuc": float(product.abs().mean()), "signed uuc": float(product.mean())}
        if full:
            module, path = model.get_submodule(key.split("#")[0]), key.split("#")[0]
            y10 = _evaluate(module, _slice(now, path), old)
            y01 = _evaluate(module, _slice(self._start, path), call)
            parts = from_corners(old.output, y10, y01, call.output)
            record |= {name: rms(getattr(parts, name)) for name in ("layer", "passthrough", "interaction")}
            record["max"] = record["layer"] / record["update"] if record["update"] > 0 else float("nan")
        return record


def rms(x: Tensor) -> float:
    """Root mean square of the entries.

    Example:
        >>> rms(torch.tensor([3.0, -3.0]))
        3.0
    """
    return float(x.detach().float().square().mean().sqrt())


def _evaluate(module: nn.Module, state: State, call: Call) -> Tensor:
    with torch.no_grad():
        return first_float(functional_call(module, fresh_buffers(module, state), call.args, call.kwargs))


def _slice(state: State, path: str) -> State:
    return {name[len(path) + 1 :]: value for name, value in state.items() if name.startswith(path + ".")} if path else state


def _still(call: Call) -> Call:
    args, kwargs = still((call.args, call.kwargs))
    return Call(args, kwargs, call.output.detach())


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, but for their shape."""
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()


def _whole(old: Tensor, new: Tensor) -> Record:
    return {"level": rms(old), "update": rms(new - old)}


def _loose(old: Tensor, new: Tensor) -> Record:
    change = rms(new - old)
    return {"level": rms(old), "update": change, "layer": change, "passthrough": 0.0, "interaction": 0.0}
