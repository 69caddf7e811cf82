"""Ctrl-C while a verb runs: it waits for an import that is under way, and is one whatever comes of it."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType

BEAT = 0.05  # seconds until a Ctrl-C that had to wait is tried again


class Interruption:
    """Puts the first Ctrl-C off while the main thread imports; a second one does not wait.

    A module whose import was cut short is broken for whoever imports it later, and libraries swallow what is raised while they
    load. So the interruption is raised once the import is over, and ``asked`` says that what else is raised may come of it.

    Example:
        >>> with Interruption() as ctrl_c:
        ...     ctrl_c.asked
        False
    """

    def __init__(self) -> None:
        self.asked = False
        self._own = False  # whether the next signal is the first one again
        self._below: FrameType | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Interruption:
        self._mine = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._mine:
            self._below = sys._getframe(1)
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._mine:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._below, waiting = None, self._timer
        if waiting is not None:
            waiting.cancel()
            if kind is None:
                raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.asked, self._own = self._own or not self.asked, True, False
        self._timer = None
        if first and self._importing(frame):
            self._timer = threading.Timer(BEAT, self._again)
            self._timer.daemon = True
            self._timer.start()
            return
        raise KeyboardInterrupt

    def _again(self) -> None:
        main = threading.main_thread().ident
        if main is not None and self._timer is not None:
            self._own = True
            signal.pthread_kill(main, signal.SIGINT)

    def _importing(self, frame: FrameType | None) -> bool:
        while frame is not None and frame is not self._below:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back
        return False
