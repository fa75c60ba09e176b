"""Cells and results: plain data that crosses processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hvkernel.matrix.model import Cell, CellResult, Problem

VALUES = (("arch", "arm64"), ("page_size", "64K"))
PAIRS = st.lists(st.tuples(st.text(), st.text())).map(tuple)
CELLS = st.builds(Cell, number=st.integers(0), values=PAIRS, seed=st.integers(0, 2**64 - 1))
RESULTS = st.builds(
    CellResult,
    cell=CELLS,
    status=st.sampled_from(["pass", "fail", "crash", "over-budget"]),
    outcome=st.text(),
    phase=st.text(),
    problems=st.lists(st.builds(Problem, st.text(), st.text())).map(tuple),
    dmesg=st.lists(st.text()).map(tuple),
    virtual=st.integers(0),
    steps=st.integers(0),
    cpu_ms=st.floats(0, 1e6),
    undriven=st.lists(st.text(max_size=8), max_size=3).map(tuple),
)


@given(RESULTS)
def test_results_read_back_from_one_line(result: CellResult) -> None:
    text = result.to_json()
    assert "\n" not in text
    assert CellResult.from_json(text) == result


def test_a_cell_is_known_by_its_values_and_seed_wherever_it_stands() -> None:
    cell = Cell(0, VALUES, 7)
    assert cell.key == Cell(99, VALUES, 7).key
    assert len({cell.key, Cell(0, VALUES, 8).key, Cell(0, VALUES[:1], 7).key, Cell(0, VALUES[::-1], 7).key}) == 4
    assert cell.by_axis == {"arch": "arm64", "page_size": "64K"}
