"""Worker processes that die, hang and grow, a coordinator that is killed: the table of results is always the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_cells import FakeCells, FakeSpec

from hvkernel.config.errors import InputError
from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import Cell, CellResult
from hvkernel.matrix.runner import Progress, cores, run
from hvkernel.matrix.store import Store, StoreError
from hvkernel.matrix.worker import Station, WorkerError


def cells(*dos: str, count: int = 0) -> list[Cell]:
    """One cell for each of ``dos``, then ``count`` that pass or fail."""
    more = ["fail" if n % 7 == 3 else "pass" for n in range(count)]
    return [Cell(n, (("do", do), ("place", str(n))), seed=n) for n, do in enumerate([*dos, *more])]


def table(path: Path) -> list[CellResult]:
    """The results without the one column that differs from run to run."""
    with Store(path) as store:
        return [replace(one, cpu_ms=0.0) for one in store.results()]


def go(path: Path, todo: Sequence[Cell], spec: FakeSpec | None = None, **options: Any) -> Progress:
    spec = spec or FakeSpec()
    with Store(path, spec) as store:
        return run(spec, todo, store, factory=FakeCells, **options)


def statuses(path: Path) -> dict[str, str]:
    return {one.cell.by_axis["do"]: one.status for one in table(path)}


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_results_do_not_depend_on_the_jobs(tmp_path: Path, jobs: int) -> None:
    todo = cells(count=100)
    told: list[Progress] = []
    last = go(tmp_path / "s", todo, jobs=jobs, progress=told.append)
    expected = [replace(FakeCells("{}").run(cell), cpu_ms=0.0) for cell in todo]
    assert table(tmp_path / "s") == expected
    assert told[-1] == last
    assert (last.total, last.done, last.earlier, last.interrupted) == (100, 100, 0, 0)
    assert last.failed == sum(one.status == "fail" for one in expected) > 10
    assert (last.workers, last.replaced) == (jobs, 0)
    assert last.rate > 0
    assert last.left == 0


def test_a_worker_loads_once_and_all_are_gone_in_the_end(tmp_path: Path) -> None:
    spec = FakeSpec({"loaded": str(tmp_path / "loaded"), "sleep": 0.01})
    go(tmp_path / "s", cells(count=40), spec, jobs=2)
    pids = [int(line) for line in (tmp_path / "loaded").read_text().split()]
    assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_all_cores_work_unless_told_otherwise(tmp_path: Path) -> None:
    assert go(tmp_path / "s", cells(count=10)).workers == min(10, cores())
    assert cores() == len(os.sched_getaffinity(0))


def test_no_more_workers_than_cells_are_started(tmp_path: Path) -> None:
    assert go(tmp_path / "s", cells(count=2), jobs=8).workers == 2
    assert go(tmp_path / "s", cells(count=2), jobs=8).workers == 0
    assert go(tmp_path / "t", []).done == 0


def test_jobs_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--jobs: jobs = 0: at least 1$"):
        go(tmp_path / "s", cells("pass"), jobs=0)


def test_more_jobs_than_a_machine_can_bear_are_refused(tmp_path: Path) -> None:
    most = 16 * cores()
    with pytest.raises(InputError, match=rf"^--jobs: jobs = {most + 1}: at most {most}, 16 for each core$"):
        go(tmp_path / "s", cells("pass"), jobs=most + 1)
    assert go(tmp_path / "s", cells("pass"), jobs=most).left == 0
    assert go(tmp_path / "s", cells("pass"), jobs=most).left == 0, "nothing was left to do"


def test_what_kills_an_interpreter_is_recorded_and_the_others_are_not_hurt(tmp_path: Path) -> None:
    todo = cells("pass", "kill", "exit", "segv", "raise", "sys.exit", "chatter", count=20)
    last = go(tmp_path / "s", todo, jobs=2)
    results = table(tmp_path / "s")
    assert [one.cell for one in results] == todo
    by = {one.cell.by_axis["do"]: one for one in results}
    said = {do: [problem.text for problem in one.problems] for do, one in by.items() if one.status == "crash"}
    assert said == {
        "kill": ["killed its interpreter: SIGKILL"],
        "exit": ["killed its interpreter: exit status 0"],
        "segv": ["killed its interpreter: SIGSEGV"],
        "raise": ["ZeroDivisionError: in the model"],
        "sys.exit": ["SystemExit: a driver that thinks it is a program"],
    }
    assert [by[do].problems[0].invariant for do in ("kill", "exit", "segv", "raise")] == [
        "interpreter-SIGKILL",
        "interpreter-exit-0",
        "interpreter-SIGSEGV",
        "interpreter",
    ]
    assert last.replaced == 9  # three times three deaths; the others are only exceptions
    assert by["exit"].dmesg[-1] == "good bye"
    assert "Fatal Python error: Segmentation fault" in by["segv"].dmesg
    assert any("in run" in line and "fake_cells.py" in line for line in by["segv"].dmesg)
    assert by["raise"].dmesg[-1] == "ZeroDivisionError: in the model"
    assert by["chatter"].status == "pass"


def test_who_is_killed_by_somebody_else_is_not_blamed(tmp_path: Path) -> None:
    spec = FakeSpec({"mark": str(tmp_path / "mark")})
    last = go(tmp_path / "s", cells("kill once", count=5), spec, jobs=1)
    assert statuses(tmp_path / "s")["kill once"] == "pass"
    assert last.replaced == 1


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_worker_that_hangs_is_replaced_and_its_cell_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # One that loops is ended by its own watchdog, with a traceback; one that is stopped by the coordinator's.
    monkeypatch.setattr("hvkernel.matrix.worker.GRACE", 0.5 if how == "stop" else 60.0)
    last = go(tmp_path / "s", cells(how, count=10), jobs=1, watchdog=0.5)
    (crash,) = [one for one in table(tmp_path / "s") if one.status == "crash"]
    assert crash.cell.number == 0
    assert [problem.text for problem in crash.problems] == ["no answer in 0.5 s"]
    assert last.done == 11
    assert last.replaced == 2
    if how == "hang":
        assert any("fake_cells.py" in line for line in crash.dmesg)


def test_a_worker_that_grows_is_replaced_between_two_cells(tmp_path: Path) -> None:
    todo = cells(*["grow"] * 12)
    spec = FakeSpec({"loaded": str(tmp_path / "loaded")})
    rows = []
    with Station(FakeCells, spec.to_json(), memory=200 << 20) as station:
        station.give(todo)
        while station.pending:
            time.sleep(0.01)
            rows += station.collect()
        assert 2 <= station.replaced <= 6
    assert [(row.number, row.status) for row in rows] == [(cell.number, "pass") for cell in todo]


def test_a_cell_that_eats_memory_ends_in_an_exception_and_the_worker_goes_on(tmp_path: Path) -> None:
    todo = cells("eat", "pass")
    rows = []
    with Station(FakeCells, "{}", memory=100 << 20) as station:
        station.give(todo)
        while station.pending:
            time.sleep(0.01)
            rows += station.collect()
    assert [(row.number, row.status) for row in rows] == [(0, "crash"), (1, "pass")]
    assert '["interpreter","MemoryError: "]' in rows[0].problems


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            "raise",
            r"^a worker cannot start: RuntimeError: no such plugin\nTraceback (.*\n)+RuntimeError: no such plugin\n$",
        ),
        ("die", r"^3 workers died before their first cell: exit status 3\nno more memory$"),
    ],
)
def test_workers_that_cannot_load_end_the_run(tmp_path: Path, load: str, said: str) -> None:
    with pytest.raises(WorkerError, match=said):
        go(tmp_path / "s", cells(count=3), FakeSpec({"load": load}), jobs=2)
    assert table(tmp_path / "s") == []


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    spec = FakeSpec({"ran": str(tmp_path / "ran")})
    todo = cells(count=30)
    with Store(tmp_path / "s", spec) as store:
        first = run(spec, todo[:10] + todo[20:], store, factory=FakeCells, jobs=1)
        last = run(spec, todo, store, factory=FakeCells, jobs=1)
    assert (first.done, last.earlier, last.done) == (20, 20, 30)
    assert last.failed == 4
    ran = [int(line) for line in (tmp_path / "ran").read_text().split()]
    assert ran == [*range(10), *range(20, 30), *range(10, 20)]


def test_a_store_that_fails_ends_the_run_and_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = FakeSpec({"loaded": str(tmp_path / "loaded"), "sleep": 0.01})
    real = Store.add_rows

    def full(self: Store, rows: Any) -> None:
        if self.counts().get("pass", 0) >= 5:
            raise StoreError(str(self.path), limit="cannot take more results: database or disk is full")
        real(self, rows)

    monkeypatch.setattr(Store, "add_rows", full)
    with pytest.raises(StoreError, match="disk is full"):
        go(tmp_path / "s", cells(count=100), spec, jobs=2)
    for pid in (tmp_path / "loaded").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    monkeypatch.undo()
    assert 5 <= len(table(tmp_path / "s")) < 100
    assert go(tmp_path / "s", cells(count=100), spec).done == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_what_is_finished(tmp_path: Path, number: int) -> None:
    spec = FakeSpec({"sleep": 0.005})
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def press(progress: Progress) -> None:
        if progress.done > 20 and not progress.interrupted:
            os.kill(os.getpid(), number)

    last = go(tmp_path / "s", cells(count=1000), spec, jobs=2, progress=press)
    assert last.interrupted == number
    assert 20 < last.done < 1000
    assert len(table(tmp_path / "s")) == last.done
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_it_runs_outside_of_the_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=go, args=(tmp_path / "s", cells(count=10)))
    thread.start()
    thread.join()
    assert len(table(tmp_path / "s")) == 10


# runs that are killed ------------------------------------------------------------------------------------------


class Killed:
    """A run in a process of its own."""

    def __init__(self, path: Path, spec: FakeSpec, count: int) -> None:
        code = (
            f"import sys, json; sys.path[:] = {sys.path!r}\n"
            "from pathlib import Path\n"
            "from fake_cells import FakeCells, FakeSpec\n"
            "from hvkernel.matrix.model import Cell\n"
            "from hvkernel.matrix.runner import run\n"
            "from hvkernel.matrix.store import Store\n"
            f"spec = FakeSpec(json.loads({json.dumps(spec.data)!r}))\n"
            "todo = [Cell(n, (('do', 'fail' if n % 7 == 3 else 'pass'), ('place', str(n))), n) "
            f"for n in range({count})]\n"
            f"with Store(Path({str(path)!r}), spec) as store:\n"
            "    sys.exit(-run(spec, todo, store, factory=FakeCells, jobs=2).interrupted)\n"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)

    def workers(self) -> list[int]:
        """Its children, from the kernel's own list."""
        pid = self.process.pid
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_kill_9_at_twenty_random_moments_then_resume(tmp_path: Path) -> None:
    count, spec = 3000, FakeSpec({"sleep": 0.006})
    go(tmp_path / "undisturbed", cells(count=count), jobs=2)
    choose = random.Random(4)
    seen: Counter[str] = Counter()
    orphans: set[int] = set()
    run_ = Killed(tmp_path / "s", spec, count)
    while seen.total() < 20:
        assert run_.process.poll() is None, "it ended too early to be killed"
        time.sleep(choose.uniform(0.0, 0.8))
        workers = run_.workers()
        orphans |= set(workers)
        if choose.random() < 0.5 and workers:
            with contextlib.suppress(ProcessLookupError):  # replaced just now
                os.kill(choose.choice(workers), signal.SIGKILL)
            seen["worker"] += 1
        else:
            run_.process.kill()
            run_.process.wait()
            seen["coordinator"] += 1
            run_ = Killed(tmp_path / "s", spec, count)
    assert run_.process.wait(120) == 0
    assert min(seen.values()) >= 3, seen
    assert table(tmp_path / "s") == table(tmp_path / "undisturbed")
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in orphans)


def test_ctrl_c_in_a_terminal_reaches_the_coordinator_alone(tmp_path: Path) -> None:
    count, spec = 2000, FakeSpec({"sleep": 0.004})
    run_ = Killed(tmp_path / "s", spec, count)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (tmp_path / "s").exists():
        time.sleep(0.05)
    while time.monotonic() < deadline and not (workers := run_.workers()):
        time.sleep(0.05)
    time.sleep(0.7)
    os.kill(workers[0], signal.SIGINT)  # some programs signal everything that they find
    time.sleep(0.2)
    os.killpg(run_.process.pid, signal.SIGINT)
    assert run_.process.wait(30) == 256 - signal.SIGINT
    assert not any(alive(pid) for pid in workers)
    done = len(table(tmp_path / "s"))
    assert all(one.status != "crash" for one in table(tmp_path / "s"))
    assert go(tmp_path / "s", cells(count=count), spec).earlier == done


# real cells ----------------------------------------------------------------------------------------------------


def test_a_real_cell_is_the_same_in_any_worker(tmp_path: Path) -> None:
    axes = {"arch": ["x86", "arm64"], "cpus": [1, 2], "policy": ["random"]}
    spec = MatrixSpec.model_validate({"axes": axes})
    todo = [
        Cell(number, (("arch", arch), ("cpus", cpus), ("policy", "random")), seed=number % 3)
        for number, (arch, cpus) in enumerate([("x86", "1"), ("arm64", "2"), ("x86", "2"), ("arm64", "1")] * 3)
    ]
    here = CellRunner(spec)
    expected = [replace(here.run(cell), cpu_ms=0.0) for cell in todo]
    assert {one.status for one in expected} == {"pass"}
    for jobs in (1, 2):
        path = tmp_path / f"jobs{jobs}"
        with Store(path, spec) as store:
            run(spec, todo, store, jobs=jobs)
        assert table(path) == expected
