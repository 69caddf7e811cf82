"""Causal marching: the limit's gradient descent, step by step, with weights as operators of finite rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from lazyrich.rich.network import Network
from lazyrich.rich.site import Site

Slope = Callable[[Tensor, int], tuple[float, Tensor]]


@dataclass
class Learned:
    """What training added to one affine map, in the bases of what goes in and of the gradients that come back.

    W_t = W_0 + gamma_0 sum_jk Omega_jk gamma_j phi_k^T: gradient descent on W is gradient descent on Omega.
    """

    weight: Tensor
    bias: Tensor
    momentum: float
    speed: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.speed = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def step(self, lr: float, delta: Tensor, gradients: Tensor, features: Tensor) -> None:
        """One step of SGD: delta (P, C), gradients (P C, J), features (P, K)."""
        pulled = (delta.reshape(-1, 1) * gradients).reshape(*delta.shape, -1).sum(1)
        rows, columns = pulled.shape[1] - self.weight.shape[0], features.shape[1] - self.weight.shape[1]
        weight, bias = self.speed
        self.weight, weight = (pad(t, (0, columns, 0, rows)) for t in (self.weight, weight))
        self.bias, bias = (pad(t, (0, rows)) for t in (self.bias, bias))
        self.speed = self.momentum * weight + pulled.T @ features, self.momentum * bias + pulled.sum(0)
        self.weight, self.bias = self.weight + lr * self.speed[0], self.bias + lr * self.speed[1]


@dataclass
class Track:
    """What a march leaves behind: coefficients of every layer's rows at every time; kernels are their products."""

    features: list[list[Tensor]]
    gradients: list[list[Tensor]]
    losses: list[float] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class March:
    """The limit's training. ``sites`` are the L hidden layers' neurons, ``inputs`` coefficients (P, K) of the inputs' kernel.

    Weights are W_l = (random) + gamma_0 gamma Omega phi^T. The random part acts on a new direction as new Gaussian noise, plus
    what it must do since its transpose was used before: sum_k <dphi(h_t)/dzeta_k> gamma_k, the response term (Bordelon &
    Pehlevan 2022, arXiv:2205.09653, eq. 9 ff.; the same object as Z-dot in Yang & Hu 2021, arXiv:2011.14522).
    """

    def __init__(self, network: Network, sites: list[Site], inputs: Tensor, momentum: float, responses: bool = True) -> None:
        self.network, self.sites, self.inputs, self.responses = network, sites, inputs, responses
        none = inputs.new_zeros(0)
        empty = inputs.new_zeros(0, inputs.shape[1])
        self.learned = [Learned(empty if i == 0 else none.reshape(0, 0), none, momentum) for i in range(network.depth)]
        outputs = network.outputs
        self.learned.append(Learned(inputs.new_zeros(outputs, 0), inputs.new_zeros(outputs), momentum))
        kept: list[list[list[Tensor]]] = [[[] for _ in range(network.depth + 2)] for _ in range(2)]
        self.track = Track(kept[0], kept[1])

    def run(self, slope: Slope, rates: list[float], watch: Callable[[int, March], None] | None = None) -> Track:
        """March through len(rates) steps; ``slope(outputs, step)`` gives the loss and -dLoss/df of the step's batch."""
        for step in range(len(rates) + 1):
            features = self.forward()
            output = self.output(features[-1])
            loss, delta = slope(output, step)
            self.track.losses.append(loss)
            self.track.outputs.append(output)
            gradients = self.backward()
            if watch is not None:
                watch(step, self)
            if step < len(rates):
                for i, learned in enumerate(self.learned):
                    learned.step(rates[step], delta, gradients[i], features[i])
        return self.track

    def forward(self) -> list[Tensor]:
        """Features of the rows, layer by layer: coefficients in their bases."""
        rows, found, response = self.inputs, [self.inputs], None
        for i, site in enumerate(self.sites):
            layer, learned = self.network.layers[i], self.learned[i]
            scale = layer.weight**0.5
            site.forward(scale * rows, self._pull(i, rows) + (0 if response is None else scale * self._fit(response, learned)))
            rows = site.take_features()
            response = site.feature_response()
            self.track.features[i + 1].append(rows)
            found.append(rows)
        self.track.features[0].append(self.inputs)
        return found

    def _fit(self, response: Tensor, learned: Learned) -> Tensor:
        size = learned.weight.shape[0]
        response = response if self.responses else torch.zeros_like(response)
        return pad(response, (0, size - response.shape[1]))

    def _pull(self, i: int, rows: Tensor) -> Tensor:
        """gamma_0 (kappa_w Omega phi + kappa_b omega), (P, J)."""
        weight_rate, bias_rate = self.network.layers[i].rates
        learned = self.learned[i]
        known = rows[:, : learned.weight.shape[1]]
        return self.network.gamma0 * (weight_rate * known @ learned.weight.T + bias_rate * learned.bias)

    def output(self, rows: Tensor) -> Tensor:
        """F = (s_L <dphi/dzeta_c> + gamma_0 kappa_w Omega phi) / gamma_0 + b, (P, C)."""
        layer, learned = self.network.layers[-1], self.learned[-1]
        weight_rate, bias_rate = layer.rates
        response = self.sites[-1].feature_response()
        start = response if response.shape[1] else response.new_zeros(len(rows), self.network.outputs)
        return (
            layer.weight**0.5 / self.network.gamma0 * start
            + weight_rate * rows[:, : learned.weight.shape[1]] @ learned.weight.T
            + bias_rate * learned.bias
        )

    def backward(self) -> list[Tensor]:
        """Gradients of the rows from the outputs down: coefficients in their bases; entry i belongs to affine map i."""
        count, outputs = len(self.inputs), self.network.outputs
        rows = torch.eye(outputs).to(self.inputs).repeat(count, 1)
        found, response = [rows], None
        self.track.gradients[-1].append(rows)
        for i in reversed(range(self.network.depth)):
            layer, learned, site = self.network.layers[i + 1], self.learned[i + 1], self.sites[i]
            size = self.track.features[i + 1][-1].shape[1]
            known = rows[:, : learned.weight.shape[0]]
            pulled = self.network.gamma0 * layer.rates[0] * known @ learned.weight
            pulled = pad(pulled, (0, size - pulled.shape[1]))
            if response is not None and self.responses:
                pulled = pulled + layer.weight**0.5 * response
            site.backward(layer.weight**0.5 * rows, pulled, outputs)
            rows = site.take_gradients()
            response = site.gradient_response()
            self.track.gradients[i + 1].append(rows)
            found.insert(0, rows)
        return found
