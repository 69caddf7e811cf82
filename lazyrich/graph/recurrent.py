"""Recurrent layers and cells step by step, in the operations that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def unrolled(program: Any) -> Any:
    """An exported program without torch's plain recurrent operations; all other operations stay as they are."""
    if not any(fx.target in STEPS for fx in program.graph.nodes):
        return program
    return program.run_decompositions(dict(STEPS))


def _cell(function: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, *tensors: Tensor | None) -> Tensor:
    """phi(W x + b + U h + c)."""
    into, onward, *biases = tensors
    b, c = biases or (None, None)
    return function(F.linear(x, into, b) + F.linear(h, onward, c))  # type: ignore[arg-type]


def _layers(
    function: Callable[[Tensor], Tensor], x: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As aten.rnn_tanh(x, hx, ...): all states of the last layer, and the last states of all."""
    ways, each = 2 if bidirectional else 1, 4 if has_biases else 2
    x = x.transpose(0, 1) if batch_first else x
    last = []
    for layer in range(num_layers):
        found = []
        for way in range(ways):
            at = layer * ways + way
            tensors, h, states = params[at * each : (at + 1) * each], hx[at], []
            steps = x.unbind(0)
            for step in reversed(steps) if way else steps:
                h = _cell(function, step, h, *tensors)
                states.append(h)
            found.append(torch.stack(states[::-1] if way else states))
            last.append(h)
        x = torch.cat(found, -1) if bidirectional else found[0]
        if dropout and train and layer < num_layers - 1:  # torch's own decomposition forgets it
            x = torch.dropout(x, dropout, train=True)
    return x.transpose(0, 1) if batch_first else x, torch.stack(last)


aten = torch.ops.aten
STEPS = {
    aten.rnn_tanh.input: partial(_layers, torch.tanh),
    aten.rnn_relu.input: partial(_layers, torch.relu),
    aten.rnn_tanh_cell.default: partial(_cell, torch.tanh),
    aten.rnn_relu_cell.default: partial(_cell, torch.relu),
}
