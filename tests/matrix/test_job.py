"""From spec to report, without the command line."""

from __future__ import annotations

from pathlib import Path

from hvkernel.config.matrix import MatrixSpec, default_spec
from hvkernel.matrix.job import open_job, replay
from hvkernel.matrix.model import CellResult
from hvkernel.matrix.store import Store, row_of

SPEC = MatrixSpec.model_validate({"cover": "full", "axes": {"arch": ["x86", "arm64"], "page_size": ["4K", "64K"]}})


def test_a_run_and_its_report(tmp_path: Path) -> None:
    job = open_job(SPEC)
    assert [cell.values for cell in job.cells] == [
        (("arch", "x86"), ("page_size", "4K")),
        (("arch", "arm64"), ("page_size", "4K")),
        (("arch", "arm64"), ("page_size", "64K")),
    ]
    with Store(tmp_path / "results", job.spec) as store:
        assert job.run(store, jobs=1).failed == 0
        report = job.report(store)
    assert (report.planned, report.done, report.failed) == (3, 3, 0)
    assert (report.pairs.seen, report.pairs.possible, report.pairs.impossible) == (3, 3, ((0, 1, 0, 1),))


def test_a_pairwise_run_that_is_through_has_every_pair_that_there_is(tmp_path: Path) -> None:
    job = open_job(default_spec())
    with Store(tmp_path / "results", job.spec) as store:
        # Each combination once, and not run.
        store.add_rows(row_of(CellResult(one, "pass", "up", "invariants")) for one in job.cells if one.seed == 0)
        report = job.report(store)
    assert report.pairs.seen == report.pairs.possible > 5000
    assert report.pairs.impossible


def test_the_cell_at_the_defaults_has_no_values() -> None:
    result, printed = replay(SPEC, "", 5)
    assert (result.cell.values, result.cell.seed, result.status) == ((), 5, "pass")
    assert any("Hyper-V" in line for line in result.dmesg)
    assert printed == ()
