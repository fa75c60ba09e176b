"""The same run on a Dask cluster of real processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_cells import FakeCells, FakeSpec

from hvkernel.config.errors import InputError
from hvkernel.matrix.distributed import run_on
from hvkernel.matrix.model import Cell, CellResult
from hvkernel.matrix.runner import Progress, run
from hvkernel.matrix.store import Store
from hvkernel.matrix.worker import WorkerError

pytestmark = pytest.mark.filterwarnings("default")  # Dask's own are nothing of ours


def cells(*dos: str, count: int = 0) -> list[Cell]:
    more = ["fail" if n % 7 == 3 else "pass" for n in range(count)]
    return [Cell(n, (("do", do), ("place", str(n))), seed=n) for n, do in enumerate([*dos, *more])]


def table(path: Path) -> list[CellResult]:
    with Store(path) as store:
        return [replace(one, cpu_ms=0.0) for one in store.results()]


def go_on(address: str, path: Path, todo: Sequence[Cell], spec: FakeSpec | None = None, **options: Any) -> Progress:
    spec = spec or FakeSpec()
    with Store(path, spec) as store:
        return run_on(address, spec, todo, store, factory=FakeCells, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three worker processes under nannies, two threads each."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=3, threads_per_worker=2, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


def local(path: Path, todo: Sequence[Cell]) -> list[CellResult]:
    with Store(path, FakeSpec()) as store:
        run(FakeSpec(), todo, store, factory=FakeCells, jobs=1)
    return table(path)


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_table_is_that_of_a_local_run(cluster: Any, tmp_path: Path) -> None:
    todo = cells("segv", "exit", "raise", "sys.exit", count=300)
    spec = FakeSpec({"loaded": str(tmp_path / "loaded")})
    told: list[Progress] = []
    last = go_on(cluster.scheduler_address, tmp_path / "far", todo, spec, progress=told.append)
    assert table(tmp_path / "far") == local(tmp_path / "near", todo)
    assert told[-1] == last
    assert (last.total, last.done, last.workers, last.interrupted) == (304, 304, 6, 0)
    assert last.replaced == 6
    pids = {int(line) for line in (tmp_path / "loaded").read_text().split()}
    assert len(pids) <= 6 + 6  # a station for each thread, and the dead ones
    wait_for(lambda: all(dead(pid) for pid in pids))


def test_machines_that_go_change_nothing(cluster: Any, tmp_path: Path) -> None:
    todo = cells(count=1000)
    spec = FakeSpec({"sleep": 0.02, "ran": str(tmp_path / "ran")})
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done > 150 * (len(killed) + 1) and len(killed) < 3:
            pid = sorted(worker.pid for worker in cluster.workers.values() if worker.pid)[len(killed)]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    last = go_on(cluster.scheduler_address, tmp_path / "far", todo, spec, progress=kill)
    assert len(killed) == 3
    assert last.done == 1000
    ran = (tmp_path / "ran").read_text().split()
    assert len(ran) > 1000, "what they had not handed in was done again"
    assert {int(number) for number in ran} == set(range(1000))
    assert table(tmp_path / "far") == local(tmp_path / "near", todo)


def test_what_is_done_is_not_done_again(cluster: Any, tmp_path: Path) -> None:
    spec = FakeSpec({"sleep": 0.01})
    todo = cells(count=2000)

    def press(progress: Progress) -> None:
        if progress.done > 50 and not progress.interrupted:
            os.kill(os.getpid(), signal.SIGINT)

    first = go_on(cluster.scheduler_address, tmp_path / "s", todo, spec, progress=press)
    assert first.interrupted == signal.SIGINT
    assert 50 < first.done < 2000
    assert len(table(tmp_path / "s")) == first.done
    todo = todo[: first.done + 50]
    last = go_on(cluster.scheduler_address, tmp_path / "s", todo, spec)
    assert last.earlier == first.done
    assert {one.cell for one in table(tmp_path / "s")} >= set(todo)


def test_cells_that_cannot_be_loaded_end_the_run(cluster: Any, tmp_path: Path) -> None:
    said = r"^the cluster cannot run cells: tcp://\S+: WorkerError: a worker cannot start: RuntimeError: no such plugin"
    with pytest.raises(WorkerError, match=said):
        go_on(cluster.scheduler_address, tmp_path / "s", cells(count=3), FakeSpec({"load": "raise"}))


def test_without_dask_it_says_what_to_install() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.modules['distributed'] = None\n"
        "try: import hvkernel.matrix.distributed\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "--scheduler: needs Dask: pip install 'hvkernel[distributed]'\n"


def test_nothing_of_dask_is_loaded_for_a_local_run() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import hvkernel.matrix.runner\n"
        "print(sorted(sys.modules.keys() & {'dask', 'distributed', 'jinja2', 'numba', 'pydantic'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n"


def test_workers_of_another_hvkernel_are_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvkernel.matrix.distributed.__version__", "9.9")
    with pytest.raises(InputError, match=r"its workers cannot run cells of hvkernel 9\.9: tcp://\S+ has hvkernel 0\.1"):
        go_on(cluster.scheduler_address, tmp_path / "s", cells(count=3))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_an_address_at_which_nobody_answers_is_refused(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=rf"^--scheduler: address = '{address}': no Dask scheduler answers: Timed out"):
        go_on(address, tmp_path / "s", cells(count=3), answer=0.5)


@pytest.mark.parametrize(
    "address",
    ["nonsense://a:1", "", "host:8786", "tcp://", "tcp://:1", "tcp://a", "tcp://a:b", "tcp://a:65536", "tcp://a:-1"],
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError) as error:
        go_on(address, tmp_path / "s", cells(count=3))
    limit = "must be SCHEME://HOST:PORT, as tcp://10.0.0.1:8786"
    assert str(error.value) == f"--scheduler: address = {address!r}: {limit}"


@pytest.fixture
def bare_scheduler() -> Iterator[tuple[str, Any]]:
    """A scheduler as ``dask scheduler`` starts it, without workers."""
    port = free_port()
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard"]
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, 60)
    yield f"tcp://127.0.0.1:{port}", process
    process.kill()
    process.wait()


def test_a_scheduler_without_workers_is_refused(bare_scheduler: tuple[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the scheduler has no workers \(waited 1 s\)$"):
        go_on(bare_scheduler[0], tmp_path / "s", cells(count=3), answer=1.0)


def test_a_scheduler_that_dies_ends_the_run_with_what_is_finished(
    bare_scheduler: tuple[str, Any], tmp_path: Path
) -> None:
    address, scheduler = bare_scheduler
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--nthreads", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([*command, "--no-nanny"], stderr=subprocess.DEVNULL, env=environment)
    done = []

    def kill(progress: Progress) -> None:
        done.append(progress.done)
        if progress.done > 50:
            scheduler.kill()

    try:
        with pytest.raises(WorkerError, match=r"^the scheduler is gone"):
            go_on(address, tmp_path / "s", cells(count=5000), FakeSpec({"sleep": 0.01}), progress=kill, answer=5.0)
        assert len(table(tmp_path / "s")) >= done[-1] > 50
    finally:
        worker.kill()
        worker.wait()


def test_it_runs_outside_of_the_main_thread(cluster: Any, tmp_path: Path) -> None:
    thread = threading.Thread(target=go_on, args=(cluster.scheduler_address, tmp_path / "s", cells(count=10)))
    thread.start()
    thread.join()
    assert len(table(tmp_path / "s")) == 10
