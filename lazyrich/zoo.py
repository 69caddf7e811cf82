"""Reference architectures under the name that people write, ``lazyrich.zoo:mlp``; their room is ``lazyrich.family.zoo``."""

from lazyrich.family.zoo import *  # noqa: F403  # all of them and nothing else, whatever that room shows
from lazyrich.family.zoo import __all__ as __all__
