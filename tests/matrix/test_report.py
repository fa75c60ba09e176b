"""What a run comes to: counts, rows, kinds, causes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvkernel.cli.matrix import _print_undriven
from hvkernel.matrix.model import Cell, CellResult, Problem, Status
from hvkernel.matrix.report import MAX_LINE, Pairs, Report, visible
from hvkernel.matrix.report_html import render
from hvkernel.matrix.report_json import to_json

AXES = {"a": ("1", "2"), "b": ("x", "y", "z")}


@dataclass(frozen=True)
class Why:
    values: tuple[tuple[str, str], ...]
    alike: tuple[tuple[str, tuple[str, ...]], ...] = ()
    text: str = "fails"
    replay: str = ""


def result(number: int, status: Status = "pass", kind: str = "", **values: str) -> CellResult:
    problems = (Problem(kind, "text"),) if kind else ()
    return CellResult(Cell(number, tuple(values.items()), number), status, "up", "boot", problems)


def report_of(results: Iterable[CellResult], kept: int = 100) -> Report:
    report = Report(AXES, planned=100, replay=lambda cell: f"again {cell.number}", kept=kept)
    for one in results:
        report.add(one)
    return report


def test_one_row_for_a_combination_under_many_seeds() -> None:
    report = report_of([result(0, a="1", b="x"), result(1, a="1", b="x"), result(2, "fail", "i", a="1", b="x")])
    assert [(row.values, list(row.counts)) for row in report.rows] == [((0, 0), [2, 1, 0, 0])]
    assert (report.done, report.failed, report.omitted) == (3, 1, 0)
    assert (report.pairs.seen, report.pairs.possible) == (1, 6)


def test_devices_that_nothing_drives_are_told_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    some = [result(n, a="1", b="x") for n in range(3)]
    report = report_of([replace(some[0], undriven=("nic0", "<b>0")), replace(some[1], undriven=("nic0",)), some[2]])
    assert report.undriven == {"nic0": 2, "<b>0": 1}
    assert json.loads(to_json(report))["undriven"] == {"<b>0": 1, "nic0": 2}
    assert "drive of their class: &lt;b&gt;0 (1 cells), nic0 (2 cells).</p>" in render(report)
    _print_undriven(report)
    assert capsys.readouterr().out.splitlines() == [
        "not driven in 1 cell: <b>0, of whose class there is no drive",
        "not driven in 2 cells: nic0, of whose class there is no drive",
    ]
    assert "Not driven" not in render(report_of(some))


def test_an_axis_or_a_value_that_was_not_told_of_joins() -> None:
    report = report_of(
        [result(0, a="1", b="x"), result(1, a="1", b="x", c="new"), result(2, a="3"), result(3, b="x", a="1")]
    )
    assert report.axes == {"a": ["1", "2", "3"], "b": ["x", "y", "z"], "c": ["new"]}
    assert [row.values for row in report.rows] == [(0, 0, -1), (0, 0, 0), (2, -1, -1)]
    assert list(report.rows[0].counts) == [2, 0, 0, 0]
    assert (report.pairs.seen, report.pairs.possible) == (3, 3 * 3 + 3 + 3)  # (1, x), (1, new), (x, new)


def test_pairs_that_no_machine_can_have_are_not_missing() -> None:
    asked: list[dict[str, str]] = []

    def possible(values: Mapping[str, str]) -> bool:
        asked.append(dict(values))
        return values != {"a": "2", "b": "z"}

    report = Report(AXES, planned=1, replay=str, possible=possible)
    report.add(result(0, a="1", b="x"))
    assert report.pairs == Pairs(1, 5, ((0, 1, 1, 2),))
    assert {"a": "1", "b": "x"} not in asked


def test_failures_beyond_the_limit_are_counted_but_each_kind_is_kept_once() -> None:
    results = [result(n, "fail", "late" if n == 9 else "early", a="1") for n in range(10)]
    report = report_of([*results, result(10, "crash", a="2")], kept=3)
    assert [one.result.cell.number for one in report.failures] == [0, 1, 2, 9, 10]
    assert {kind.name: kind.cells for kind in report.kinds.values()} == {"early": 9, "late": 1, "crash": 1}
    assert report.omitted == 6
    assert report.failures[0].replay == "again 0"


def test_a_cause_takes_in_the_cells_that_have_its_values_and_fail_alike() -> None:
    report = report_of([
        result(0, "fail", "i", a="1", b="x"),
        result(1, "fail", "i", a="1", b="y"),
        result(2, "fail", "other", a="1", b="y"),
        result(3, "fail", "i", a="2", b="y"),
        result(4, "crash", a="2", b="y"),
        result(5, "fail", "i", a="2", b="z"),
    ])  # fmt: skip
    asked: list[int] = []

    def shrink(failed: CellResult) -> Why | None:
        asked.append(failed.cell.number)
        return None if failed.status == "crash" else Why(failed.cell.values[:1])

    told: list[tuple[int, str]] = []
    report.explain(shrink, progress=lambda *one: told.append(one))
    assert asked == [0, 2, 4, 3]  # first one of each kind
    assert [one.cause for one in report.failures] == [0, 0, 1, 2, None, 2]
    assert [(kind, cause.values) for kind, cause in report.causes] == [
        ("i", (("a", "1"),)), ("other", (("a", "1"),)), ("i", (("a", "2"),)),
    ]  # fmt: skip
    assert told == [(0, "i"), (1, "other"), (2, "crash"), (2, "i")]
    report.attribute()
    assert report.cells == {(0, "i"): 2, (1, "other"): 1, (2, "i"): 2, (None, "crash"): 1}


def test_failures_that_are_not_kept_are_put_to_the_causes_too() -> None:
    results = [result(n, "fail", "i", a="12"[n % 2]) for n in range(10)]
    report = report_of(results, kept=1)
    report.explain(lambda failed: Why(failed.cell.values))
    report.attribute(results)
    assert report.cells == {(0, "i"): 5, (None, "i"): 5}


def test_values_that_are_as_bad_belong_to_the_cause() -> None:
    report = report_of(result(n, "fail", "i", a="1", b=b) for n, b in enumerate("xyz"))
    asked: list[int] = []

    def shrink(failed: CellResult) -> Why:
        asked.append(failed.cell.number)
        return Why((("b", failed.cell.by_axis["b"]),), alike=(("b", ("y",)),) if not failed.cell.number else ())

    report.explain(shrink)
    assert asked == [0, 2]
    assert [one.cause for one in report.failures] == [0, 0, 1]


def test_so_many_failures_are_shrunk_and_no_more() -> None:
    report = report_of(result(n, "fail", f"kind{n}", a="1") for n in range(5))
    asked: list[int] = []
    report.explain(lambda one: asked.append(one.cell.number), limit=2)
    assert asked == [0, 1]


@given(st.text())
def test_visible_text_is_printable_and_loses_nothing(text: str) -> None:
    shown = visible(text, limit=10**6)
    assert all(c.isprintable() or c == "\t" for c in shown)
    if text.isprintable():
        assert shown == text


def test_a_line_has_an_end() -> None:
    assert visible("x" * (MAX_LINE + 5)) == "x" * MAX_LINE + " ... (5 more characters)"
