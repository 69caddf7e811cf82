"""Supervised processes: what dies is replaced, what dies always is recorded, and nobody is left behind."""

import contextlib
import functools
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from lazyrich.errors import SweepError
from lazyrich.sweep import Processes, Store, sweep
from lazyrich.sweep.packed import attempt_packed, packed, unpacked
from lazyrich.sweep.trial import Trial, attempt

OFFSET = 10


def add(a):
    return a + OFFSET


def once_dead(a, folder):
    """Dies the first time that it sees an odd number."""
    mark = os.path.join(folder, str(a))
    if a % 2 and not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return a


def test_functions_of_files_that_nobody_can_import_travel_with_what_they_use(tmp_path):
    results = sweep(add, {"a": list(range(6))}, tmp_path / "s", executor=Processes(2))
    assert [row["value"] for row in results.rows()] == list(range(10, 16))


NUMBER = "import os, signal\nK = 1\n\ndef run(a, mark):\n    if a == 2 and not os.path.exists(mark):\n"
NUMBER += "        open(mark, 'w').close()\n        os.kill(os.getpid(), signal.SIGKILL)\n    return K * a\n"


def test_a_worker_that_starts_after_an_edit_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_while_swept.py"
    file.write_text(NUMBER)
    function = importlib.import_module(file.stem).run
    data = packed(functools.partial(function, 7))  # before the edit, as for workers of a cluster

    def edit(outcome):
        file.write_text(NUMBER.replace("K = 1", "K = 100"))

    settings = [{"a": a, "mark": str(tmp_path / "mark")} for a in range(4)]
    with pytest.raises(SweepError, match="edited_while_swept.py' is not what the sweep started with.*start the same command"):
        sweep(function, settings, tmp_path / "s", executor=Processes(1, retries=1), callbacks=[edit])
    with Store(tmp_path / "s") as store:
        assert [outcome.value["value"] for outcome in store.all()] == [0, 1]
    assert callable(unpacked(data))  # the module that was imported here is still the old one
    monkeypatch.delitem(sys.modules, file.stem)
    unpacked.cache_clear()
    outcome = attempt_packed(data, Trial("k", {}))
    assert outcome.status == "failed" and "start the same command again" in outcome.error


def test_workers_take_the_threads_that_they_are_given(tmp_path):
    def threads(a):
        import torch

        return torch.get_num_threads()

    results = sweep(threads, {"a": [0]}, tmp_path / "s", executor=Processes(1, threads=2))
    assert results.rows()[0]["value"] == 2


def test_a_trial_whose_process_died_is_tried_again(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    settings = [{"a": a, "folder": str(marks)} for a in range(6)]
    results = sweep(once_dead, settings, tmp_path / "s", executor=Processes(2))
    assert [row["value"] for row in results.rows()] == list(range(6))
    assert [o.attempts for o in results.outcomes] == [1, 2, 1, 2, 1, 2]


def test_an_exception_does_not_colour_the_terminal():
    def red(a):
        raise ValueError("\x1b[31ma\x07\nb\tc")

    assert attempt(red, Trial("k", {"a": 1})).error.startswith("ValueError: \\x1b[31ma\\x07\nb\tc (")


def test_a_trial_that_always_dies_is_recorded_with_its_last_words(tmp_path):
    def deadly(a):
        if a == 1:
            print("\x1b[31mthat hurts", flush=True)
            os._exit(3)
        return a

    results = sweep(deadly, {"a": [0, 1, 2]}, tmp_path / "s", executor=Processes(2, retries=1))
    assert [o.status for o in results.outcomes] == ["done", "died", "done"]
    assert results.failures[0].attempts == 2
    assert results.failures[0].error == "the process was ended with status 3; its last words: \\x1b[31mthat hurts"  # not in red


def test_what_trials_print_harms_nobody(tmp_path):
    def noisy(a):
        os.write(1, os.urandom(100_000))
        sys.stderr.write("\x00\xff" * 1000)
        return a

    results = sweep(noisy, {"a": [0, 1, 2]}, tmp_path / "s", executor=Processes(2))
    assert [row["value"] for row in results.rows()] == [0, 1, 2]


def test_a_trial_that_takes_too_long_dies(tmp_path):
    def slow(a):
        time.sleep(60 if a else 0)
        return a

    results = sweep(slow, {"a": [0, 1]}, tmp_path / "s", executor=Processes(1, retries=0, timeout=1.0))
    assert [o.status for o in results.outcomes] == ["done", "died"]
    assert "took longer than 1 s" in results.failures[0].error


def test_an_answer_that_waits_for_a_busy_parent_is_not_too_late(tmp_path):
    def nap(a):
        time.sleep(0.1 + 0.1 * (a % 2))  # no two answers at once
        return a

    results = sweep(
        nap, {"a": list(range(4))}, tmp_path / "s", executor=Processes(2, retries=0, timeout=0.7),
        callbacks=[lambda outcome: time.sleep(1.0)],
    )  # fmt: skip
    assert [o.error for o in results.failures] == []


def test_functions_that_cannot_travel_are_refused(tmp_path):
    lock = threading.Lock()
    with pytest.raises(SweepError, match="cannot be sent to another process.*lock"):
        sweep(lambda a: lock, {"a": [1]}, tmp_path / "s", executor=Processes(1))

    class Broken:
        def __reduce__(self):
            return exec, ("raise ImportError('no such thing here')",)

    broken = Broken()
    with pytest.raises(SweepError, match="a worker cannot load the function: ImportError: no such thing here"):
        sweep(lambda a: broken, {"a": [1]}, tmp_path / "s", executor=Processes(1))


def children():
    """Live worker processes of this one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
            fields = stat.read().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z" and "lazyrich.sweep.worker" in line.read():
                found.append(int(pid))
    return found


def test_workers_killed_at_random_lose_no_trial(tmp_path):
    log = tmp_path / "log"
    log.touch()

    def nap(a):
        with open(log, "a") as file:
            file.write(f"{a}\n")
        time.sleep(0.02)
        return a

    over, kills, draw = threading.Event(), [], random.Random(0)

    def killer():
        """One worker for every ten trials begun: a worker that never lives to take a trial is another test's."""
        while not over.wait(0.01):
            if len(log.read_text().splitlines()) < 10 * (len(kills) + 1):
                continue
            for pid in draw.sample(children(), min(1, len(children()))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        results = sweep(nap, {"a": list(range(80))}, tmp_path / "s", executor=Processes(2, retries=20))
    finally:
        over.set()
        thread.join()
    assert len(kills) >= 2
    assert [row["value"] for row in results.rows()] == list(range(80))
    with Store(tmp_path / "s") as store:
        assert len(store.all()) == 80
    assert children() == []


PARENT = """
import sys, time
from lazyrich.sweep import Processes, sweep
log = sys.argv[2]
def nap(a):
    with open(log, "a") as file:
        file.write(f"{a}\\n")
    time.sleep(0.05)
    return a
print("begun", flush=True)
print(sweep(nap, {"a": list(range(60))}, sys.argv[1], executor=Processes(2), code="1"), flush=True)
"""


def parent(tmp_path, log):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "s"), str(tmp_path / log)], stdout=subprocess.PIPE, text=True
    )


def wait_for(count, store):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with Store(store) as kept:
            if len(kept.all()) >= count:
                return
        time.sleep(0.05)
    raise TimeoutError


def test_a_killed_parent_leaves_its_finished_trials_and_no_workers(tmp_path):
    first = parent(tmp_path, "log1")
    wait_for(10, tmp_path / "s")
    first.kill()
    first.communicate()
    with Store(tmp_path / "s") as store:
        kept = {o.settings["a"] for o in store.all()}
    second = parent(tmp_path, "log2")
    out, _ = second.communicate(timeout=120)
    assert "60 trials: 60 done" in out
    again = [int(line) for line in (tmp_path / "log2").read_text().split()]
    assert sorted(again) == sorted(set(range(60)) - kept)  # nothing that was finished ran again, all else ran once


def test_two_parents_share_one_store(tmp_path):
    both = [parent(tmp_path, f"log{i}") for i in (1, 2)]
    outs = [p.communicate(timeout=120)[0] for p in both]
    assert all("60 trials: 60 done" in out for out in outs)
    ran = [int(line) for i in (1, 2) for line in (tmp_path / f"log{i}").read_text().split()]
    assert sorted(ran) == list(range(60))
    assert all((tmp_path / f"log{i}").read_text() for i in (1, 2))
