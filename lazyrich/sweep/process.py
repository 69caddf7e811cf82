"""A process of this machine, told from another that has its number later."""

from __future__ import annotations

import os


def start_of(pid: int) -> str:
    """When a process of this machine started, so that a reused number is not taken for it; empty where there is none.

    Example:
        >>> start_of(os.getpid()) == start_of(os.getpid()) != "", start_of(2**22 + 1)
        (True, '')
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
