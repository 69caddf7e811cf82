"""Reference architectures, each a plain ``nn.Module`` that takes its width as first argument."""

from lazyrich.family.zoo.autoencoder import Autoencoder, autoencoder
from lazyrich.family.zoo.conv import ConvNet, convnet
from lazyrich.family.zoo.mlp import MLP, mlp, two_class
from lazyrich.family.zoo.residual import ResidualMLP, residual_mlp
from lazyrich.family.zoo.transformer import Transformer, tied_transformer, transformer

__all__ = [
    "MLP",
    "Autoencoder",
    "ConvNet",
    "ResidualMLP",
    "Transformer",
    "autoencoder",
    "convnet",
    "mlp",
    "residual_mlp",
    "tied_transformer",
    "transformer",
    "two_class",
]
