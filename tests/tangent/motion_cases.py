"""Networks along whose gradients derivatives are taken."""

from torch import nn


class Row(nn.Module):
    """A dense network of two hidden layers with any function between them."""

    def __init__(self, phi):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.phi = phi

    def forward(self, x):
        return self.last(self.phi(self.second(self.phi(self.first(x)))))
