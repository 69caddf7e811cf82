"""Base-shapes files of the package mup: which width a network was tuned at, and which of its axes are widths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lazyrich.errors import FamilyError

BaseShapes = Mapping[str, tuple[int | None, ...]]
_NAME = re.compile(r"^(['\"]?)([\w.\-]+)\1:\s*(\[.*\])?$")
_ITEM = re.compile(r"^-\s+(\S+)$")


def read_base_shapes(path: str | Path) -> BaseShapes:
    r"""Base size of every axis by tensor name; None where an axis is no width.

    The files are YAML of one shape: names, each with a list of numbers and nulls.

    Raises:
        FamilyError: if the file is missing, or holds anything else.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "net.bsh"
        >>> _ = file.write_text("# base shapes\nfirst.weight:\n- 64\n- null\nlast.weight: [null, 64]\n")
        >>> read_base_shapes(file)
        {'first.weight': (64, None), 'last.weight': (None, 64)}
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FamilyError(f"cannot read the base shapes in {path}: {error}") from error
    found: dict[str, list[int | None]] = {}
    name = None
    for number, raw in enumerate(lines, start=1):
        line = raw.split("#")[0].strip()
        if not line:
            continue
        item, entry = _ITEM.match(line), _NAME.match(line)
        if item and name is not None:
            found[name].append(_size(item[1], path, number))
        elif entry:
            name = entry[2]
            inline = (entry[3] or "[]")[1:-1].strip()
            found[name] = [_size(word.strip(), path, number) for word in inline.split(",")] if inline else []
        else:
            raise FamilyError(f"{path}, line {number}: got '{line}', expected a tensor's name or '- size' as mup writes them")
    if not found:
        raise FamilyError(f"{path} holds no base shapes; make_base_shapes(base, delta, savefile=...) of mup writes them")
    return {key: tuple(sizes) for key, sizes in found.items()}


def width_of(shapes: BaseShapes, shapes_at: Mapping[int, Mapping[str, tuple[int, ...]]]) -> int | None:
    """The width, among those that were tried, at which a network has these base shapes."""
    for width, own in shapes_at.items():
        if set(own) == set(shapes) and all(_fits(shapes[name], own[name]) for name in own):
            return width
    return None


def candidates(shapes: BaseShapes) -> list[int]:
    """Sizes of axes that are widths, the most frequent first."""
    counted = Counter(size for sizes in shapes.values() for size in sizes if size is not None)
    return [size for size, _ in counted.most_common()]


def _fits(base: tuple[int | None, ...], own: tuple[int, ...]) -> bool:
    return len(base) == len(own) and all(size is None or size == n for size, n in zip(base, own, strict=True))


def _size(word: str, path: str | Path, number: int) -> int | None:
    if word in ("null", "'null'", "~"):
        return None
    if not word.isdigit():
        raise FamilyError(f"{path}, line {number}: got '{word}', expected a whole number or null")
    return int(word)
