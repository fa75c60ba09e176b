"""The ring's benchmark: what it prints and judges. How fast anything is, no test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hvkernel.ring.bench import CASES, Case, Row, markdown, measure, table
from hvkernel.ring.reference import Reference, build

ROW = Row("64", 64, 128, "jit", 6.0, 24.0, 30.0, 5.4, 4.0, 5.0, 0.9, 3.5, 0.85)


@pytest.fixture(scope="module")
def reference(program: Callable[[str, str], str]) -> Reference:
    program("gcc", "gcc")
    return build()


@pytest.mark.parametrize("loop", ["jit", "python", "write", "threads"])
def test_every_loop_moves_packets_and_fills_a_row(reference: Reference, loop: str) -> None:
    (row,) = measure(reference, budget_ms=0.5, repeats=3, cases=[Case((64, 1500), 4, 1 << 14, loop, 0.0)])
    assert (row.payload, row.batch, row.ring_kib, row.loop, row.ok) == ("IMIX", 4, 16, loop, True)
    assert min(row.ns, row.iter_ns, row.ratio) > 0
    both = loop in ("jit", "python")
    assert [value is not None for value in (row.recv_ns, row.memcpy_ns, row.recv_ratio, row.memcpy_ratio)] == [both] * 4


def test_every_case_fits_its_ring() -> None:
    for case in CASES:
        total = sum((case.sizes[i % len(case.sizes)] + 7 & ~7) + 24 for i in range(case.batch))
        assert total < case.ring, case
    assert {(case.payload, case.batch, case.loop) for case in CASES} >= {("IMIX", 256, "jit"), ("64", 1, "jit")}


def test_a_missed_floor_is_told() -> None:
    assert ROW.ok
    slow = replace(ROW, ratio=3.49)
    assert not slow.ok
    assert not replace(ROW, memcpy_ratio=0.84).ok
    assert replace(ROW, floor=None, memcpy_floor=None, ratio=0.1, memcpy_ratio=None).ok
    lines = table([ROW, slow]).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "MISSED"]
    assert len({line.index("jit") for line in lines[1:]}) == 1
    assert slow.as_dict()["ok"] is False


def test_runs_become_ranges() -> None:
    text = markdown([[ROW], [replace(ROW, ratio=3.0, recv_ratio=None)]])
    assert text.splitlines()[-1] == (
        "| 64 B, 64, 128 KiB, jit | 6.0 | 24.0 | **3.00 to 4.00** (3.5) | 5.00 | 0.90 (0.85) |"
    )
