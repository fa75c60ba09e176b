"""A scheduling policy that lets some processors and tasks wait for long, where ``random`` is fair to all."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

DEMOTE: Final = 1 / 40
"""How often whoever was chosen goes behind all others."""


class Starving:
    """Who has the highest rank runs; ranks are random, and now and then the one that runs falls to the lowest.

    After S. Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010.
    """

    sticky = False

    def __init__(self, seed: int) -> None:
        self.name = f"starving:{seed}"
        self._random = Random(f"starving/{seed}")
        self._ranks: dict[object, float] = {}
        self._lowest = 0.0

    def choose(self, ready: Sequence[object]) -> int:
        """Return the index of what runs next."""
        ranks = self._ranks
        best, chosen = -1.0e9, 0
        for index, one in enumerate(ready):
            rank = ranks.get(one)
            if rank is None:
                rank = ranks[one] = self._random.random()
            if rank > best:
                best, chosen = rank, index
        if self._random.random() < DEMOTE:
            self._lowest -= 1.0
            ranks[ready[chosen]] = self._lowest
        return chosen
