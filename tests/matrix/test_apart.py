"""Cells that kill or hang whoever runs them: found, shrunk to the value that makes them do so, and replayed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_lantern import DEVICE, forget, install
from fake_cells import FakeCells

from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.apart import Apart, Interrupted
from hvkernel.matrix.job import open_job
from hvkernel.matrix.model import HANG, Cell, CellResult, Problem
from hvkernel.matrix.runner import run, until_signal
from hvkernel.matrix.shrink import LETHAL, shrink
from hvkernel.matrix.store import Store

SPEC = MatrixSpec.model_validate(
    {
        "cover": "full",
        "axes": {"arch": ["arm64"], "page_size": ["4K", "64K"], "cpus": [4, 1], "hz": [250, 100]},
        "vm": {"device": [DEVICE]},
    }
)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that installs the lantern with a fault. Only other processes may run it."""

    def make(fault: str) -> None:
        site = tmp_path / "site"
        site.mkdir()
        install(site, fault)
        monkeypatch.syspath_prepend(str(site))

    yield make
    forget()


ENDS = {
    "kill": ("interpreter-SIGSEGV", "killed its interpreter: SIGSEGV"),
    "spin": ("interpreter-hang", "no answer in 2 s"),
}


@pytest.mark.parametrize("fault", ENDS)
def test_a_driver_that_ends_its_interpreter_is_shrunk_to_the_page_size(
    broken: Callable[[str], None], tmp_path: Path, fault: str
) -> None:
    broken(fault)
    job = open_job(SPEC)
    with Store(tmp_path / "results", SPEC) as store:
        few = [cell for cell in job.cells if (cell.by_axis["cpus"], cell.by_axis["hz"]) == ("1", "100")]
        run(SPEC, few, store, jobs=1, watchdog=2.0)
        report = job.report(store)
    assert report.counts == {"pass": 1, "crash": 1}
    (failure,) = report.failures
    assert failure.result.cell.by_axis["page_size"] == "64K"
    assert failure.result.problems == (Problem(*ENDS[fault]),)
    with Apart(SPEC, watchdog=2.0) as apart:
        report.explain(lambda result: shrink(apart, result))
    ((kind, cause),) = report.causes
    assert (kind, cause.text) == (ENDS[fault][0], "fails iff page_size=64K")
    assert cause.replay == "hvkernel matrix --cell 'page_size=64K' --seed 0"


# on cells that are made up -------------------------------------------------------------------------------------


def fake(_: str, **options: Any) -> FakeCells:
    """Cells that do as axis ``do`` says; a module's function, so that a worker can make it."""
    return FakeCells("{}")


def do(what: str) -> Cell:
    return Cell(7, (("do", what),), 1)


def test_a_cell_that_ends_its_interpreter_has_a_result_and_the_next_one_another() -> None:
    with Apart(SPEC, factory=fake, watchdog=0.5) as apart:
        found = [apart.run(do(what), twice=False) for what in ("exit", "pass", "hang", "raise", "pass")]
        assert apart.printed[-1] == "cell 7 does pass"
    assert [[problem.invariant for problem in one.problems] for one in found] == [
        ["interpreter-exit-0"],
        [],
        ["interpreter-hang"],
        ["interpreter"],
        [],
    ]
    assert found[0].dmesg[-1] == "good bye"


def test_when_enough_cells_hung_nothing_more_is_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvkernel.matrix.apart.HANGS", 1)
    with Apart(SPEC, factory=fake, watchdog=0.5) as apart:
        apart.run(do("exit"), twice=False)
        assert not apart.tired
        apart.run(do("hang"), twice=False)
        assert apart.tired


def test_a_signal_ends_the_wait_for_a_cell_that_hangs() -> None:
    with until_signal() as stop, Apart(SPEC, stop, factory=fake) as apart:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Interrupted) as end:
            apart.run(do("hang"), twice=False)
    assert end.value.signal == signal.SIGINT


class Lethal:
    """Cells that hang with any number of processors that is named."""

    spec = MatrixSpec.model_validate({"axes": {"arch": ["x86"], "cpus": list(range(1, 61))}})

    def __init__(self) -> None:
        self.boots = 0

    def run(self, cell: Cell, *, twice: bool) -> CellResult:
        self.boots += 1
        hangs = "cpus" in cell.by_axis
        return CellResult(cell, "crash" if hangs else "pass", "", "", (Problem(HANG, "so"),) if hangs else ())


def test_no_more_interpreters_are_spent_than_it_is_worth_and_no_more_is_claimed_than_was_seen() -> None:
    trials = Lethal()
    result = trials.run(Cell(0, (("arch", "x86"), ("cpus", "60")), 0), twice=False)
    cause = shrink(trials, result, runs=1000)
    assert LETHAL <= trials.boots <= LETHAL + 3
    assert cause.text.startswith("fails with cpus is 1 or 2 or ")
