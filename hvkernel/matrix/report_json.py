"""The report of a run as JSON: what ``hvkernel matrix --json`` prints."""

from __future__ import annotations

import json
from typing import Any, Final

from hvkernel.matrix.report import STATUSES, Failure, Report

__all__ = ["SCHEMA", "to_json"]

SCHEMA: Final = 1


def to_json(report: Report) -> str:
    """Return the report, one line. Nothing in it depends on the machine, on its speed or on the number of workers."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "title": report.title,
        "cells": {
            "planned": report.planned,
            "done": report.done,
            **{status: report.counts[status] for status in STATUSES},
        },
        "axes": report.axes,
        "pairs": {"seen": report.pairs.seen, "possible": report.pairs.possible},
        "kinds": {kind.name: kind.cells for kind in report.kinds.values()},
        "causes": [
            {
                "kind": kind,
                "values": dict(cause.values),
                "text": cause.text,
                "cells": report.cells[index, kind],
                "replay": cause.replay,
            }
            for index, (kind, cause) in enumerate(report.causes)
        ],
        "failures": [_failure(failure) for failure in report.failures],
        "omitted": report.omitted,
        "undriven": dict(sorted(report.undriven.items())),
    }
    return json.dumps(data, separators=(",", ":")) + "\n"


def _failure(failure: Failure) -> dict[str, Any]:
    result = failure.result
    return {
        "number": result.cell.number,
        "values": result.cell.by_axis,
        "seed": result.cell.seed,
        "status": result.status,
        "outcome": result.outcome,
        "phase": result.phase,
        "problems": [{"invariant": problem.invariant, "text": problem.text} for problem in result.problems],
        "dmesg": list(result.dmesg),
        "cause": failure.cause,
        "replay": failure.replay,
    }
