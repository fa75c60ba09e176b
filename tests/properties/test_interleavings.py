"""500 random interleavings of what can happen to channels keep every invariant (tests/properties/interleavings)."""

from __future__ import annotations

from typing import Any

import pytest

SEEDS = 500
CHUNK = 25
MOST_KNOWN = 6
"""Runs of a chunk that may end in a fault of 6.1 itself (one or two do); more, and the runs prove too little."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_invariant_holds(first: int, interleave: Any) -> None:
    results = [interleave(seed) for seed in range(first, first + CHUNK)]
    failed = [result for result in results if result.wrong]
    assert not failed, "\n".join(f"seed {result.plan.seed}\n{result}" for result in failed)
    known = [result.known for result in results if result.known]
    assert len(known) <= MOST_KNOWN, known


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_one_seed_is_one_run(seed: int, interleave: Any) -> None:
    one, other = interleave(seed), interleave(seed)
    assert one.digest == other.digest
    assert one.known == other.known
    assert str(one.plan) == str(other.plan)


def test_seeds_differ(interleave: Any) -> None:
    assert len({interleave(seed).digest for seed in range(12)}) == 12
