"""Decision diagrams against plain enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvkernel.kconfig.diagram import FALSE, TRUE, Diagrams

VARIABLES = {"a": ("0", "1", "2"), "b": ("x", "y"), "c": ("p",), "d": ("0", "1", "2", "3")}
EVERYTHING = [dict(zip(VARIABLES, values, strict=True)) for values in itertools.product(*VARIABLES.values())]

Formula = tuple[object, ...]
ATOMS = st.sampled_from(sorted(VARIABLES)).flatmap(
    lambda name: st.tuples(st.just("in"), st.just(name), st.lists(st.sampled_from(VARIABLES[name]), unique=True))
)
FORMULAS: st.SearchStrategy[Formula] = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["both", "either", "implies"]), inner, inner),
        st.tuples(st.just("choose"), inner, inner, inner),
    ),
    max_leaves=12,
)


def build(d: Diagrams, formula: Formula) -> int:
    kind, *parts = formula
    if kind == "in":
        return d.one_of(*parts)  # type: ignore[arg-type] # name and values
    nodes = [build(d, part) for part in parts]  # type: ignore[arg-type] # formulas
    if kind == "not":
        return d.opposite(nodes[0])
    join: Callable[..., int] = getattr(d, str(kind))
    return join(*nodes)


def holds(formula: Formula, values: dict[str, str]) -> bool:
    kind, *parts = formula
    if kind == "in":
        return values[parts[0]] in parts[1]  # type: ignore[index, operator] # name and values
    truths = [holds(part, values) for part in parts]  # type: ignore[arg-type] # formulas
    match kind:
        case "not":
            return not truths[0]
        case "both":
            return truths[0] and truths[1]
        case "either":
            return truths[0] or truths[1]
        case "implies":
            return not truths[0] or truths[1]
    return truths[1] if truths[0] else truths[2]


@given(FORMULAS, st.dictionaries(st.just("b"), st.sampled_from(VARIABLES["b"])), st.sampled_from(VARIABLES["d"]))
def test_every_question_as_by_enumeration(formula: Formula, b: dict[str, str], last: str) -> None:
    d = Diagrams(VARIABLES)
    node = build(d, formula)
    true_of = [values for values in EVERYTHING if holds(formula, values)]
    assert [values for values in EVERYTHING if d.holds(node, values)] == true_of
    assert d.count(node) == len(true_of)
    assert [dict(zip(VARIABLES, row, strict=True)) for row in d.combinations(node)] == true_of
    assert [dict(zip(VARIABLES, d.combination(node, n), strict=True)) for n in range(len(true_of))] == true_of
    fixed = {**b, "d": last}
    some = [values for values in true_of if fixed.items() <= values.items()]
    assert d.possible(node, d.places(fixed)) == bool(some)
    under = d.under(node, fixed)
    assert (under == FALSE) == (not some)
    assert not {"d", *b} & {*d.support(under)}


@given(FORMULAS, FORMULAS)
def test_equal_functions_are_one_node(one: Formula, other: Formula) -> None:
    d = Diagrams(VARIABLES)
    same = all(holds(one, values) == holds(other, values) for values in EVERYTHING)
    assert (build(d, one) == build(d, other)) == same


def test_ends() -> None:
    d = Diagrams(VARIABLES)
    assert (d.count(TRUE), d.count(FALSE)) == (24, 0)
    assert d.all([]) == TRUE
    assert d.any([]) == FALSE
    assert d.one_of("b", ("x", "y")) == TRUE
    assert d.one_of("b", ("z",)) == FALSE
    assert d.possible(TRUE, {})
    assert not d.possible(FALSE, {})
    assert d.branches(d.one_of("a", ("0", "2"))) == ("a", ((("0", "2"), TRUE), (("1",), FALSE)))
    for number in (-1, 24):
        with pytest.raises(IndexError):
            d.combination(TRUE, number)
