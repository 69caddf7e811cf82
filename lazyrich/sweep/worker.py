"""What a worker process does: ``python -m lazyrich.sweep.worker FD`` is started by ``Processes``, never by a person."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from lazyrich.errors import SweepError
from lazyrich.sweep.packed import unpacked
from lazyrich.sweep.trial import attempt


def main(fd: int) -> None:
    """Take the function, then trials, until the parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    parent = Connection(fd)
    try:
        sys.path[:], data = parent.recv()
        function = unpacked(data)
    except SweepError as error:
        parent.send(("edited", str(error)))
        return
    except Exception as error:  # an import that fails may raise anything
        parent.send(("refused", f"{type(error).__name__}: {error}"))
        return
    parent.send(("ready", None))
    try:
        while True:
            parent.send(("outcome", attempt(function, parent.recv())))
    except (EOFError, OSError):
        return


def _end_with(parent: int) -> None:
    """A killed parent cannot end its workers: each looks after itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
