"""Objects named in text: ``package.module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lazyrich.errors import UsageError


def resolve(reference: str) -> Any:
    """The callable that a reference names.

    A file is run once in a process: every reference to it leads to the same module, until the file is changed. A module that is
    no file but an attribute of its package, as ``os.path``, serves too.

    Args:
        reference: ``package.module:callable`` or ``path/to/file.py:callable``.

    Raises:
        UsageError: if the reference has no colon, its module is missing or crashes, or the name is no callable of it.

    Example:
        >>> resolve("math:sqrt")(9.0)
        3.0
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"got '{reference}', expected package.module:callable or path/to/file.py:callable")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    if not hasattr(module, name):
        raise UsageError(f"'{place}' has no '{name}'; {_offered(name, _callables(module))}")
    found = getattr(module, name)
    if not callable(found):
        raise UsageError(f"'{reference}' is {type(found).__name__}, expected a callable such as def {name}(width)")
    return found


def module_name(name: str) -> str:
    """The name of a module without the place of its file, which is another on every machine.

    Example:
        >>> module_name("math"), module_name("_lazyrich_net_0123abcd")
        ('math', 'net')
    """
    return re.sub(r"^_lazyrich_(.+)_[0-9a-f]{8}$", r"\1", name)


def _offered(name: str, known: list[str]) -> str:
    """What may have been meant: names like it, else the first that there are."""
    if close := difflib.get_close_matches(name, known):
        return f"did you mean {' or '.join(close)}?"
    return f"its callables are {', '.join(known[:12]) or 'none'}{f', and {len(known) - 12} more' if len(known) > 12 else ''}"


def _callables(module: Any) -> list[str]:
    """Public callables, those that the module itself defines before those that it imports."""
    found = [n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n, None))]
    home = getattr(module, "__name__", None)
    return sorted(found, key=lambda n: getattr(getattr(module, n), "__module__", None) != home)


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give the path of a Python file as seen from {Path.cwd()}")
    path = path.resolve()
    text = _text(path)
    name = f"_lazyrich_{path.stem}_{hashlib.sha256(str(path).encode() + text).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' cannot be loaded as Python")
    # what Python keeps compiled may be an earlier text's, if that was as long and of the same second
    loader: Any = spec.loader
    loader.get_code = lambda _: loader.source_to_code(text, str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    folder, done = str(path.parent), False
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
        done = True
    except (Exception, SystemExit) as error:  # the user's file may raise anything, or be a script that exits
        raise _crashed(str(path), error) from error
    finally:
        if not done:
            sys.modules.pop(name, None)  # a half-made module must not be found the next time
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from error


def _from_package(place: str) -> Any:
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"'{place}' is no module's name and does not end in .py; expected package.module or path/to/file.py")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(error.name + ".")):
            raise _crashed(place, error) from error  # the module is there, something that it imports is not
    except (Exception, SystemExit) as error:  # the user's module may raise anything, or be a script that exits
        raise _crashed(place, error) from error
    parent, _, attribute = place.rpartition(".")
    found = getattr(sys.modules.get(parent) or _parent(parent, place), attribute, None) if parent else None
    if found is None:
        raise UsageError(f"there is no module '{place}'; is it installed, or did you mean a file: {place}.py:name?")
    return found


def _parent(parent: str, place: str) -> Any:
    try:
        return importlib.import_module(parent)
    except ModuleNotFoundError:
        raise UsageError(f"there is no module '{place}'; is it installed, or did you mean a file?") from None


def _crashed(place: str, error: BaseException) -> UsageError:
    first = (str(error).splitlines() or [""])[0]
    inside = isinstance(error, ImportError) and "relative import" in first
    mend = "name it as a module of its package, package.module:callable" if inside else "mend it and try again"
    return UsageError(f"'{place}' crashed while it was imported: {type(error).__name__}: {first}; {mend}")
