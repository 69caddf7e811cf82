"""Local clusters of two workers, as Dask and Ray start them: the same trials, also when a worker is killed."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from lazyrich.errors import SweepError
from lazyrich.sweep import Store, executor_for, sweep
from lazyrich.sweep.executor import dask
from lazyrich.sweep.trial import Trial


def once_dead(a, folder):
    """Dies the first time that it sees a 3."""
    mark = os.path.join(folder, str(a))
    if a == 3 and not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return a


def check(name, tmp_path):
    settings = [{"a": a, "folder": str(tmp_path)} for a in range(8)]
    results = sweep(once_dead, settings, tmp_path / "s", executor=executor_for(name, workers=2))
    assert [row["value"] for row in results.rows()] == list(range(8))
    assert (tmp_path / "3").exists()  # it was killed

    def fails(a):
        raise ValueError("no")

    assert sweep(fails, {"a": [1]}, tmp_path / "s", executor=executor_for(name, workers=1)).outcomes[0].status == "failed"


@pytest.mark.filterwarnings("ignore")
def test_a_killed_dask_worker_costs_one_trials_time(tmp_path):
    pytest.importorskip("distributed")
    check("dask", tmp_path)


def always_dead(a):
    if a == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return a


@pytest.mark.filterwarnings("ignore")
def test_a_trial_that_kills_its_dask_worker_takes_no_other_with_it(tmp_path):
    """Dask blames all that waited on the dead workers."""
    pytest.importorskip("distributed")
    with importlib.import_module("dask.config").set({"distributed.scheduler.allowed-failures": 1}):
        results = sweep(always_dead, {"a": list(range(10))}, tmp_path / "s", executor=executor_for("dask", workers=2))
    assert [o.settings["a"] for o in results.failures] == [3] and results.failures[0].status == "died"
    assert "died: a=3: its worker process died (KilledWorker; Dask tried it alone up to 2 times); run it with" in str(results)
    assert sorted(o.value["value"] for o in results.outcomes if o.status == "done") == [a for a in range(10) if a != 3]


def nap(a):
    time.sleep(0.05 if a < 2 else 0.5)
    return a


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [4, 40])  # all of them under way, or some still to be given
def test_a_dask_scheduler_that_is_gone_leaves_its_trials_unfinished(tmp_path, count):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        where = executor_for(f"dask://{cluster.scheduler_address.removeprefix('tcp://')}")
        with pytest.raises(SweepError, match="the Dask scheduler '127.0.0.1:.* is gone .*repeat the same command"):
            sweep(nap, {"a": list(range(count))}, tmp_path / "s", executor=where, callbacks=[lambda outcome: cluster.close()])
    with Store(tmp_path / "s") as store:
        kept = store.all()
    assert 0 < len(kept) < count and {o.status for o in kept} == {"done"}


class Slow:
    """A result that arrives at the third time of asking."""

    asked = 0

    def result(self, timeout):
        self.asked += 1
        if self.asked < 3:
            raise asyncio.TimeoutError
        return "there"


def test_a_result_is_waited_for_only_while_the_dask_scheduler_listens():
    pytest.importorskip("distributed")
    comm = SimpleNamespace(closed=lambda: False)
    client = SimpleNamespace(status="running", scheduler_comm=comm)
    assert dask._result(client, Slow()) == "there"
    client.status = "closed"
    with pytest.raises(ConnectionError):
        dask._result(client, Slow())


class Lost:
    """Ray's face over a cluster of one machine that is gone after the first trial, or whose trial 3 dies."""

    class exceptions:  # noqa: N801
        class RayError(Exception): ...

        class WorkerCrashedError(RayError): ...

        class RaySystemError(RayError): ...

    def __init__(self, gone: bool) -> None:
        self.gone, self.up, self.got = gone, False, 0

    def init(self, **_):
        assert not self.got, "a cluster of its own was started"
        self.up = True

    def is_initialized(self):
        return self.up

    def cluster_resources(self):
        return {"CPU": 2}

    def put(self, value):
        return value

    def remote(self, **_):
        return lambda call: SimpleNamespace(remote=lambda data, trial: (call, data, trial.key, tuple(trial.settings.items())))

    def wait(self, references, num_returns):
        self.up = not (self.gone and self.got)
        if not self.up:
            raise ConnectionError("Failed to reconnect within the reconnection grace period")
        return references[:1], references[1:]

    def get(self, reference):
        self.got += 1
        call, data, key, settings = reference
        if dict(settings) == {"a": 3}:
            raise self.exceptions.WorkerCrashedError("The worker died. Check python-core-worker-*.log files.")
        return call(data, Trial(key, dict(settings)))

    def cancel(self, reference, force):
        self.init()

    def shutdown(self):
        self.up = False


@pytest.mark.parametrize("gone", [True, False])
def test_a_ray_cluster_that_is_gone_is_no_trials_fault_and_a_dead_worker_is(tmp_path, monkeypatch, gone):
    monkeypatch.setitem(sys.modules, "ray", Lost(gone))
    where = executor_for("ray://head:10001", retries=3)
    if gone:
        with pytest.raises(SweepError, match="the Ray cluster 'head:10001' is gone .*repeat the same command"):
            sweep(same, {"a": [1, 2, 3]}, tmp_path / "s", executor=where)
    else:
        results = sweep(same, {"a": [1, 2, 3]}, tmp_path / "s", executor=where)
        assert "died: a=3: its worker process died (WorkerCrashedError; Ray tried it up to 4 times); run it with" in str(
            results
        )
        assert [o.attempts for o in results.outcomes] == [0, 0, 0]  # which Ray does not say
    with Store(tmp_path / "s") as store:
        assert [o.status for o in store.all()] == (["done"] if gone else ["done", "done", "died"])


def same(a):
    return a


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_killed_ray_worker_costs_one_trials_time(tmp_path):
    pytest.importorskip("ray")
    check("ray", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_that_is_not_there_is_said(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    impatient = lambda *args, timeout, whole=distributed.Client, **named: whole(*args, timeout=timeout / 10, **named)  # noqa: E731
    monkeypatch.setattr(distributed, "Client", impatient)
    with pytest.raises(SweepError, match="'127.0.0.1:9' does not answer"):
        sweep(same, {"a": [1]}, tmp_path / "s", executor=executor_for("dask://127.0.0.1:9"))


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_that_is_not_there_is_said(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(SweepError, match="does not answer"):
        sweep(same, {"a": [1]}, tmp_path / "s", executor=executor_for("ray://auto"))


@pytest.mark.filterwarnings("ignore")
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    """Dask's processes import the script that was started."""
    pytest.importorskip("distributed")
    (tmp_path / "script.py").write_text(
        "import sys\nfrom lazyrich.sweep import executor_for, sweep\n"
        "sweep(dict, [{}], sys.argv[1], name='dict', code='1', executor=executor_for('dask', workers=1))\n"
    )
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "s")]
    said = subprocess.run(words, check=False, capture_output=True, text=True).stderr
    assert "so put what the script does under: if __name__ == '__main__':" in said.splitlines()[-1]
    assert said.count("Traceback") == 1 and len(said.splitlines()) < 25
