"""The sharing ledger: which guest pages the host can reach, since when, and through what.

The ledger records what the guest *told* the host (a register overlay, a GPADL, an in-flight GPA range, the monitor
pages, a visibility change), as the host understood it. Sanitizers, kexec checks and reports read it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn


class LedgerError(ValueError):
    """A share or a revocation that cannot be: names via, key and the value."""


class LedgerEntry(NamedTuple):
    """One contiguous run of shared pages."""

    gpa: int
    """Address of the first byte."""
    pages: int
    """Length in 4 KiB pages."""
    via: str
    """Through what: "hypercall page", "simp", "siefp", "reference tsc", "vp assist", "gpadl N", "gpa-range",
    "monitor", "visibility"."""
    key: Hashable
    """What tells apart shares of one kind: a VP index, a GPADL handle, a transaction id."""
    since: int
    """Virtual time of the share, 100 ns units."""
    cpu: int
    """VP index that told the host."""


class Ledger:
    """Shares of one guest, in the order they were made. Overlapping shares are counted, not merged.

    :param pages: the first page number past guest memory; a share must end at or before it.
    """

    __slots__ = ("_asked", "_bounds", "_counts", "_next", "_pages", "_runs", "_watchers")

    def __init__(self, pages: int) -> None:
        self._pages = pages
        self._runs: dict[tuple[str, Hashable], list[tuple[int, LedgerEntry]]] = {}
        self._next = 0
        self._bounds: list[int] | None = None
        self._asked = False
        self._counts: list[int] = []
        self._watchers: tuple[Callable[[bool, LedgerEntry], None], ...] = ()

    def watch(self, fn: Callable[[bool, LedgerEntry], None]) -> None:
        """Call ``fn(shared, entry)`` after each share (True) and each revocation (False)."""
        self._watchers = (*self._watchers, fn)

    def share(self, hvpfn: HvPfn, pages: int, via: str, key: Hashable, since: int, cpu: int) -> None:
        """Record that the host can reach `pages` pages from `hvpfn` on.

        Several shares may bear the same (via, key): :meth:`revoke` ends them together. A run that continues the
        last one of its (via, key, since, cpu) is joined to it.

        :raises LedgerError: no pages, or pages outside guest memory.
        """
        if pages < 1:
            raise LedgerError(f"share via {via!r} key {key!r}: pages = {pages}, at least 1 is needed")
        if hvpfn < 0 or hvpfn + pages > self._pages:
            raise LedgerError(
                f"share via {via!r} key {key!r}: pages {hvpfn:#x}..{hvpfn + pages - 1:#x} are outside "
                f"guest memory, which ends before page {self._pages:#x}"
            )
        entry = LedgerEntry(hvpfn << HV_HYP_PAGE_SHIFT, pages, via, key, since, cpu)
        runs = self._runs.get((via, key))
        if runs is None:
            self._runs[via, key] = [(self._next, entry)]
            self._next += 1
        else:
            order, last = runs[-1]
            joins = last.gpa + (last.pages << HV_HYP_PAGE_SHIFT) == entry.gpa
            if joins and last.since == since and last.cpu == cpu:
                runs[-1] = (order, last._replace(pages=last.pages + pages))
            else:
                runs.append((self._next, entry))
                self._next += 1
        self._bounds = None
        self._asked = False
        for fn in self._watchers:
            fn(True, entry)

    def share_pages(self, hvpfns: Iterable[HvPfn], via: str, key: Hashable, since: int, cpu: int) -> None:
        """Record scattered pages, in their order, as runs as long as possible.

        :raises LedgerError: as :meth:`share`; pages before the bad one stay recorded.
        """
        start = end = -1
        for hvpfn in hvpfns:
            if hvpfn == end:
                end += 1
                continue
            if start >= 0:
                self.share(HvPfn(start), end - start, via, key, since, cpu)
            start = hvpfn
            end = hvpfn + 1
        if end > start:
            self.share(HvPfn(start), end - start, via, key, since, cpu)

    def revoke(self, via: str, key: Hashable) -> tuple[LedgerEntry, ...]:
        """End all shares with (via, key) and return them.

        :raises LedgerError: there is no such share.
        """
        runs = self._runs.pop((via, key), None)
        if runs is None:
            raise LedgerError(f"revoke via {via!r} key {key!r}: nothing is shared under that name")
        self._bounds = None
        self._asked = False
        ended = tuple(entry for _, entry in runs)
        for fn in self._watchers:
            for entry in ended:
                fn(False, entry)
        return ended

    def is_shared(self, via: str, key: Hashable) -> bool:
        """True if a share with (via, key) exists."""
        return (via, key) in self._runs

    def entries(self) -> tuple[LedgerEntry, ...]:
        """All shares, oldest first."""
        ordered = sorted((pair for runs in self._runs.values() for pair in runs), key=_order)
        return tuple(entry for _, entry in ordered)

    def shares_of(self, hvpfn: HvPfn) -> tuple[LedgerEntry, ...]:
        """The shares that contain page `hvpfn`, oldest first."""
        gpa = hvpfn << HV_HYP_PAGE_SHIFT
        return tuple(e for e in self.entries() if e.gpa <= gpa < e.gpa + (e.pages << HV_HYP_PAGE_SHIFT))

    def count(self, hvpfn: HvPfn) -> int:
        """How many shares contain page `hvpfn`."""
        bounds = self._bounds
        if bounds is None:
            if not self._asked:
                # One question between two changes (a page freed per request) is not worth an index.
                self._asked = True
                gpa = hvpfn << HV_HYP_PAGE_SHIFT
                return sum(
                    entry.gpa <= gpa < entry.gpa + (entry.pages << HV_HYP_PAGE_SHIFT)
                    for runs in self._runs.values()
                    for _, entry in runs
                )
            bounds = self._index()
        at = bisect_right(bounds, hvpfn)
        return self._counts[at - 1] if at else 0

    def host_can_reach(self, hvpfn: HvPfn) -> bool:
        """True if at least one share contains page `hvpfn`."""
        return self.count(hvpfn) > 0

    def first_shared(self, hvpfn: HvPfn, pages: int) -> HvPfn | None:
        """The lowest page of `pages` pages from `hvpfn` on that a share contains, None without one.

        Looks at every share and builds no index: for questions between changes, as freeing memory asks them.
        """
        low = hvpfn << HV_HYP_PAGE_SHIFT
        high = (hvpfn + pages) << HV_HYP_PAGE_SHIFT
        found = high
        for runs in self._runs.values():
            for _, (gpa, count, *_rest) in runs:
                if gpa < found and gpa + (count << HV_HYP_PAGE_SHIFT) > low:
                    found = gpa if gpa > low else low
        return None if found == high else HvPfn(found >> HV_HYP_PAGE_SHIFT)

    def _index(self) -> list[int]:
        steps: dict[int, int] = {}
        for runs in self._runs.values():
            for _, entry in runs:
                first = entry.gpa >> HV_HYP_PAGE_SHIFT
                steps[first] = steps.get(first, 0) + 1
                steps[first + entry.pages] = steps.get(first + entry.pages, 0) - 1
        bounds = sorted(steps)
        counts: list[int] = []
        total = 0
        for bound in bounds:
            total += steps[bound]
            counts.append(total)
        self._bounds = bounds
        self._counts = counts
        return bounds

    def __len__(self) -> int:
        return sum(len(runs) for runs in self._runs.values())


def _order(pair: tuple[int, LedgerEntry]) -> int:
    return pair[0]
