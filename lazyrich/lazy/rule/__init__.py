"""One rule a file: what an operation of a network does to a random field."""

from lazyrich.lazy.rule import (
    attention,
    constant,
    convolution,
    dropout,
    embedding,
    linear,
    norm,
    parameter,
    picked,
    pointwise,
    pool,
    product,
    shape,
    statistic,
    sums,
    turned,
)
from lazyrich.lazy.rule.pointwise import through
from lazyrich.lazy.rule.table import RULES, Call, Need, Rule, pairs, register

__all__ = [
    "RULES",
    "Call",
    "Need",
    "Rule",
    "attention",
    "constant",
    "convolution",
    "dropout",
    "embedding",
    "linear",
    "norm",
    "pairs",
    "parameter",
    "picked",
    "pointwise",
    "pool",
    "product",
    "register",
    "shape",
    "statistic",
    "sums",
    "through",
    "turned",
]
