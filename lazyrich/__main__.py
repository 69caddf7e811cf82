"""``python -m lazyrich``."""

from lazyrich.cli import script

script()
