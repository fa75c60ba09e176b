"""JUnit XML: its shape, what another reader makes of it, and text that XML cannot hold."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import junitparser
import pytest

from hvkernel.matrix.junit import write_junit
from hvkernel.matrix.model import Cell, CellResult, Problem
from hvkernel.matrix.report import Report

HOSTILE = "]]> <b> & \" ' \x00\x0b\x1b[2J \x85 \ud800 \ufffe \u202e end"


@dataclass(frozen=True)
class Why:
    values: tuple[tuple[str, str], ...]
    text: str
    replay: str
    alike: tuple[tuple[str, tuple[str, ...]], ...] = ()


def replay(cell: Cell) -> str:
    return f"replay {cell.number}"


def cell(number: int) -> Cell:
    return Cell(number, (("arch", "x86"), ("cpus", str(number))), 7)


RESULTS = [
    CellResult(cell(0), "pass", "up", "invariants", cpu_ms=1234.5),
    CellResult(
        cell(1), "fail", "panic", "boot", (Problem("boot-rules", "a <b>"), Problem("dmesg", "c")), ("one", "two")
    ),
    CellResult(cell(2), "crash", "", "drive"),
    CellResult(cell(3), "over-budget", "hung", "boot", (), (HOSTILE,)),
    CellResult(cell(4), "fail", "up", "drive", (Problem("disk\x1b", HOSTILE),)),
]


def written(results: list[CellResult], title: str = "") -> str:
    report = Report({"arch": ("x86",)}, planned=len(results), replay=replay, title=title)
    for result in results:
        report.add(result)
    report.explain(lambda one: Why((("cpus", "1"),), "fails iff cpus=1", "") if one.cell.number == 1 else None)
    out = io.StringIO()
    write_junit(out, report, results, replay=replay)
    return out.getvalue()


def test_another_reader_finds_every_cell() -> None:
    found = junitparser.JUnitXml.fromstring(written(RESULTS, "mine").encode())
    assert (found.name, found.tests, found.failures, found.errors) == ("mine", 5, 3, 1)
    (suite,) = found
    cases = list(suite)
    assert [case.is_passed for case in cases] == [True, False, False, False, False]
    assert cases[0].name == "arch=x86,cpus=0 seed=7"
    assert cases[0].time == pytest.approx(1.234, abs=0.001)
    kinds = [(type(case.result[0]).__name__, case.result[0].type, case.result[0].message) for case in cases[1:4]]
    assert kinds == [
        ("Failure", "boot-rules", "a <b>"),
        ("Error", "crash", "crash in phase drive"),
        ("Failure", "over-budget", "over-budget in phase boot"),
    ]
    assert cases[1].result[0].text == "boot-rules: a <b>\ndmesg: c\ncause: fails iff cpus=1\nreplay: replay 1"
    assert cases[1].system_out == "one\ntwo"
    suite.update_statistics()  # type: ignore[no-untyped-call] # the one method there without annotations
    assert (suite.tests, suite.failures, suite.errors) == (5, 3, 1)


def test_it_has_the_shape_that_ci_servers_read() -> None:
    """As the schemas of Ant's task, Jenkins' xunit plugin and GitLab have it in common."""
    attributes = {
        "testsuites": {"name", "tests", "failures", "errors"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped"},
        "testcase": {"classname", "name", "time"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "system-out": set(),
    }
    children = {
        "testsuites": {"testsuite"},
        "testsuite": {"testcase"},
        "testcase": {"failure", "error", "system-out"},
        "failure": set(),
        "error": set(),
        "system-out": set(),
    }
    root = ET.fromstring(written(RESULTS))
    assert root.tag == "testsuites"
    seen = set()
    for element in root.iter():
        seen.add(element.tag)
        assert set(element.attrib) == attributes[element.tag]
        assert {child.tag for child in element} <= children[element.tag]
        for name in ("tests", "failures", "errors", "skipped"):
            assert element.get(name, "0").isdecimal()
        assert float(element.get("time", "0")) >= 0
    assert seen == set(attributes)
    for case in root.iter("testcase"):
        assert len([child for child in case if child.tag in ("failure", "error")]) <= 1
    names = [case.get("name") for case in root.iter("testcase")]
    assert len(set(names)) == len(names)


def test_what_xml_cannot_hold_is_written_out() -> None:
    text = written(RESULTS, HOSTILE)
    text.encode("utf-8")
    root = ET.fromstring(text)
    shown = r"]]> <b> & \" ' \x00\x0b\x1b[2J \x85 \ud800 \ufffe \u202e end".replace('\\"', '"')
    assert root.get("name") == shown
    assert [one.text for one in root.iter("system-out")] == ["one\ntwo", shown]
    last = root.findall(".//failure")[-1]
    assert (last.get("type"), last.get("message")) == (r"disk\x1b", shown)
    assert not set(text) & {chr(c) for c in range(32) if c != 10}
