"""A buddy allocator over page frame numbers. Knows nothing of memory contents.

Free blocks are carved from untouched ranges only when needed, lowest address first, so that a guest with much
memory costs no more to boot than a small one. Which of several free pages the kernel would take is *unspecified*; this
takes the most recently freed one, else the lowest.
"""

from __future__ import annotations

from collections.abc import Iterable


class Buddy:
    """One zone."""

    __slots__ = ("_free", "_untouched", "free_pages", "max_order", "name", "total")

    def __init__(self, name: str, ranges: Iterable[tuple[int, int]], max_order: int) -> None:
        """:param ranges: ``(first, end)`` page frame numbers, ascending and apart. :param max_order: largest order."""
        self.name = name
        self.max_order = max_order
        self._untouched: list[tuple[int, int]] = [r for r in reversed(list(ranges)) if r[1] > r[0]]
        self._free: list[dict[int, None]] = [{} for _ in range(max_order + 1)]
        self.total = sum(end - first for first, end in self._untouched)
        self.free_pages = self.total

    def alloc(self, order: int) -> int | None:
        """First page frame number of a free block of ``2 ** order`` pages, aligned to its size; None without one."""
        for have in range(order, self.max_order + 1):
            blocks = self._free[have]
            if blocks:
                pfn, _ = blocks.popitem()
                break
        else:
            found = self._carve(order)
            if found is None:
                return None
            pfn, have = found
        while have > order:
            have -= 1
            self._free[have][pfn + (1 << have)] = None
        self.free_pages -= 1 << order
        return pfn

    def _carve(self, order: int) -> tuple[int, int] | None:
        """The lowest untouched block of at least ``order``; smaller ones on the way become free blocks."""
        untouched = self._untouched
        while untouched:
            first, end = untouched.pop()
            size = end - first
            have = min(self.max_order, size.bit_length() - 1)
            if first:
                have = min(have, (first & -first).bit_length() - 1)
            if first + (1 << have) < end:
                untouched.append((first + (1 << have), end))
            if have >= order:
                return first, have
            self._free[have][first] = None
        return None

    def free(self, pfn: int, order: int) -> None:
        """Give a block back and join it with its free buddies."""
        self.free_pages += 1 << order
        free = self._free
        while order < self.max_order:
            buddy = pfn ^ (1 << order)
            if buddy not in free[order]:
                break
            del free[order][buddy]
            pfn &= ~(1 << order)
            order += 1
        free[order][pfn] = None
