"""The ruled box in which tyro says what it refuses, as one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PLAINER = (  # what tyro says, and how every other refusal says it
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"got \2 after \1, expected a whole number"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"got \2 after \1, expected a number"),
    (r"Error parsing (\S+): no type matching \{None\}\|INT could be instantiated from \[(.*?)\].*",
     r"got \2 after \1, expected a whole number"),
    (r"Error parsing (\S+): no type matching \{None\}\|FLOAT could be instantiated from \[(.*?)\].*",
     r"got \2 after \1, expected a number"),
    (r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)\.?", r"got \1 after \2, expected one of \3"),
    (r"Unrecognized options: (.*)", r"got \1, which is no option"),
)  # fmt: skip


def unboxed(box: str) -> str:
    r"""What stands in a box: what was refused, and the options that it may have been meant for.

    Example:
        >>> unboxed("│ Unrecognized options: --wdth │\n│ ──── │\n│ Perhaps you meant: │\n│     --width INT │")
        'got --wdth, which is no option; perhaps you meant --width'
    """
    parts = [part for part in _parts(COLOUR.sub("", box)) if part]
    return "; ".join(filter(None, map(_said, parts))) or " ".join(box.split())


def _parts(box: str) -> list[list[str]]:
    """The lines between rules, without the frame and the title; where a terminal has no lines to draw, spaces frame them."""
    drawn = "│" in box
    parts: list[list[str]] = [[]]
    for line in (line[1:].rstrip("│ ") for line in box.splitlines() if line.startswith("│" if drawn else " ")):
        if line and set(line.strip()) <= {"─", "-"}:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts if drawn else parts[1:]


def _said(part: Sequence[str]) -> str:
    """One part of a box; empty for the help of an option and for where to find more."""
    words, names = " ".join(line.strip() for line in part if not line.startswith("   ")), _named(part)
    if words.startswith("Missing"):
        return f"got no {' and no '.join(names)}, expected {'one' if len(names) == 1 else 'both'}"
    if words.startswith("Perhaps"):
        return f"perhaps you meant {' or '.join(names)}"
    if words.startswith(("For full", "Argument helptext")):
        return ""
    for theirs, ours in PLAINER:
        words = re.sub(theirs, ours, words)
    return words[:1].lower() + words[1:].rstrip(".")


def _named(part: Sequence[str]) -> list[str]:
    """The options that a part lists, without what follows them; their help is indented further."""
    return [line.split()[0] for line in part if line.startswith("     ") and not line.startswith("      ")]
