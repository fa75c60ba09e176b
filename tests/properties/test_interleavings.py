"""500 random interleavings of what can happen to channels keep every invariant (tests/properties/interleavings)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

SEEDS = 500
CHUNK = 25
MOST_KNOWN = 0.06
"""Share of the runs that may end in a fault of 6.1 itself; more, and the runs prove too little."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_invariant_holds(first: int, interleave: Any) -> None:
    results = [interleave(seed) for seed in range(first, first + CHUNK)]
    failed = [result for result in results if result.wrong]
    assert not failed, "\n".join(f"seed {result.plan.seed}\n{result}" for result in failed)


def test_few_runs_end_in_a_fault_of_the_kernel_itself(interleave: Any) -> None:
    known = Counter(name for seed in range(100) for name in set(interleave(seed).known))
    assert sum(known.values()) <= 100 * MOST_KNOWN, known


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_one_seed_is_one_run(seed: int, interleave: Any) -> None:
    one, other = interleave(seed), interleave(seed)
    assert one.digest == other.digest
    assert one.known == other.known
    assert str(one.plan) == str(other.plan)


def test_seeds_differ(interleave: Any) -> None:
    assert len({interleave(seed).digest for seed in range(12)}) == 12
