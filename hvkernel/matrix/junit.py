"""JUnit XML of a run, for CI servers: what ``hvkernel matrix --junit`` writes.

There is no standard but what Ant's task wrote first and Jenkins, GitLab and others read: ``testsuites`` of
``testsuite`` of ``testcase``, each with at most one ``failure`` or ``error``. A cell that broke an invariant or its
budget is a failure, one that crashed an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TextIO
from xml.sax.saxutils import escape, quoteattr

from hvkernel.matrix.model import Cell, CellResult
from hvkernel.matrix.report import Cause, Report, kind_of, visible

__all__ = ["write_junit"]

_SUITE: Final = "hvkernel.matrix"


def write_junit(
    out: TextIO,
    report: Report,
    results: Iterable[CellResult],
    *,
    replay: Callable[[Cell], str],
) -> None:
    """Write one ``testcase`` for each result, as they come.

    :param report: of these results: totals stand at the top of the file, and causes with the failures.
    :param replay: the command that runs one cell again.
    """
    errors = report.counts["crash"]
    totals = f'tests="{report.done}" failures="{report.failed - errors}" errors="{errors}"'
    causes = {
        failure.result.cell.key: report.causes[failure.cause][1]
        for failure in report.failures
        if failure.cause is not None
    }
    name = _attribute(report.title or _SUITE)
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    out.write(f"<testsuites name={name} {totals}>\n")
    out.write(f'<testsuite name={name} {totals} skipped="0">\n')
    for result in results:
        _write_case(out, result, causes, replay)
    out.write("</testsuite>\n</testsuites>\n")


def _write_case(out: TextIO, result: CellResult, causes: Mapping[str, Cause], replay: Callable[[Cell], str]) -> None:
    cell = result.cell
    name = ",".join(f"{axis}={value}" for axis, value in cell.values) + f" seed={cell.seed}"
    attributes = f'classname="{_SUITE}" name={_attribute(name)} time="{result.cpu_ms / 1000:.3f}"'
    if result.status == "pass":
        out.write(f"<testcase {attributes}/>\n")
        return
    tag = "error" if result.status == "crash" else "failure"
    first = result.problems[0].text if result.problems else f"{result.status} in phase {result.phase or 'unknown'}"
    lines = [f"{problem.invariant}: {problem.text}" for problem in result.problems]
    cause = causes.get(cell.key)
    if cause is not None:
        lines.append(f"cause: {cause.text}")
    lines.append(f"replay: {replay(cell)}")
    out.write(f"<testcase {attributes}>\n")
    out.write(f"<{tag} type={_attribute(kind_of(result))} message={_attribute(first)}>")
    out.write(_text(lines))
    out.write(f"</{tag}>\n")
    if result.dmesg:
        out.write(f"<system-out>{_text(result.dmesg)}</system-out>\n")
    out.write("</testcase>\n")


def _attribute(text: str) -> str:
    return quoteattr(visible(text))


def _text(lines: Iterable[str]) -> str:
    """Return lines that may stand in XML 1.0, which has no place for most control characters, escaped or not."""
    return escape("\n".join(map(visible, lines)))
