"""``python -m lazyrich.cli``."""

from lazyrich.cli import script

script()
