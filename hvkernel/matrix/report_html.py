"""One self-contained page of a run: what ``hvkernel matrix --html`` writes.

The page loads nothing from anywhere: style, script and data stand in it, and its content security policy names the two
by their hash, so no other script can run in it, whatever a log line says. What comes from a guest reaches the page as
JSON with the characters of HTML written as escapes, or through a template that escapes, and the script only ever makes
text of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hvkernel import __version__
from hvkernel.matrix.report import STATUSES, Failure, Report, visible

__all__ = ["render"]


def render(report: Report) -> str:
    """Return the page. The same results give the same bytes."""
    style, script = _part("report.css"), _part("report.js")
    environment = Environment(
        loader=PackageLoader("hvkernel.matrix", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    unexplained = {kind: count for (cause, kind), count in report.cells.items() if cause is None}
    return environment.get_template("report.html.j2").render(
        report=report,
        statuses=STATUSES,
        causes=[
            (kind, _example(report, index), cause, report.cells[index, kind])
            for index, (kind, cause) in enumerate(report.causes)
        ],
        version=__version__,
        unexplained=sum(unexplained.values()),
        unexplained_kinds=", ".join(unexplained),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(_safe_json(_data(report))),
    )


def _example(report: Report, cause: int) -> str:
    """Return what is wrong in the first cell of a cause."""
    problems = next((one.result.problems for one in report.failures if one.cause == cause), ())
    return problems[0].text if problems else ""


def _part(name: str) -> str:
    return (resources.files("hvkernel.matrix") / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _safe_json(data: object) -> str:
    """Return JSON that can stand in a ``script`` element: ASCII, and nothing in it that ends the element or opens a
    comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _data(report: Report) -> dict[str, Any]:
    """Return what the script works on. Columns, not rows: a hundred thousand combinations of sixteen axes are three
    megabytes."""
    return {
        "statuses": STATUSES,
        "axes": [
            {"name": visible(name), "values": [visible(value) for value in values]}
            for name, values in report.axes.items()
        ],
        "columns": [[row.values[index] for row in report.rows] for index in range(len(report.axes))],
        "counts": [[row.counts[index] for row in report.rows] for index in range(len(STATUSES))],
        "causes": [visible(cause.text) for _, cause in report.causes],
        "telling": [visible(axis) for _, cause in report.causes[:1] for axis, _ in cause.values],
        "failures": [_failure(failure) for failure in report.failures],
        "omitted": report.omitted,
        "impossible": report.pairs.impossible,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    result = failure.result
    return {
        "number": result.cell.number,
        "seed": str(result.cell.seed),  # a seed of 64 bits is no number of JavaScript
        "row": failure.row,
        "status": result.status,
        "kind": visible(failure.kind),
        "outcome": visible(result.outcome),
        "phase": visible(result.phase),
        "cause": -1 if failure.cause is None else failure.cause,
        "problems": [[visible(problem.invariant), visible(problem.text)] for problem in result.problems],
        "log": [visible(line) for line in result.dmesg],
        "replay": visible(failure.replay),
        "seconds": result.virtual / 10_000_000,
        "steps": result.steps,
    }
