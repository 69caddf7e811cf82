"""Reference architectures, each a plain ``nn.Module`` that takes its width as first argument."""

from lazyrich.family.zoo.autoencoder import (
    Autoencoder,
    ConvAutoencoder,
    TiedAutoencoder,
    autoencoder,
    conv_autoencoder,
    tied_autoencoder,
)
from lazyrich.family.zoo.conv import ConvNet, convnet
from lazyrich.family.zoo.mlp import MLP, mlp, two_class
from lazyrich.family.zoo.residual import ResidualMLP, residual_mlp
from lazyrich.family.zoo.transformer import Transformer, tied_transformer, transformer

__all__ = [
    "MLP",
    "Autoencoder",
    "ConvAutoencoder",
    "ConvNet",
    "ResidualMLP",
    "TiedAutoencoder",
    "Transformer",
    "autoencoder",
    "conv_autoencoder",
    "convnet",
    "mlp",
    "residual_mlp",
    "tied_autoencoder",
    "tied_transformer",
    "transformer",
    "two_class",
]
