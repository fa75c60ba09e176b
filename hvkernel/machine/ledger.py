"""The sharing ledger: which guest pages the host can reach, since when, and through what.

The ledger records what the guest *told* the host (a register overlay, a GPADL, an in-flight GPA range, the monitor
pages, a visibility change), as the host understood it. Sanitizers, kexec checks and reports read it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn

_MANY: Final = 255
"""A page's mark that says "this many or more": then the shares are counted."""
_MORE: Final = bytes(min(n + 1, _MANY) for n in range(256))
_LESS: Final = bytes(max(n - 1, 0) if n < _MANY else n for n in range(256))


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

    __slots__ = ("_marks", "_next", "_pages", "_runs", "_watchers")

    def __init__(self, pages: int) -> None:
        self._pages = pages
        self._runs: dict[tuple[str, Hashable], list[tuple[int, LedgerEntry]]] = {}
        self._marks = bytearray(pages)
        self._next = 0
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
        name = (via, key)
        runs = self._runs.get(name)
        if runs is None:
            self._runs[name] = [(self._next, entry)]
            self._next += 1
        else:
            order, last = runs[-1]
            joins = last.gpa + (last.pages << HV_HYP_PAGE_SHIFT) == entry.gpa
            if joins and last.since == since and last.cpu == cpu:
                runs[-1] = (order, last._replace(pages=last.pages + pages))
            else:
                runs.append((self._next, entry))
                self._next += 1
        self._mark(hvpfn, pages)
        for fn in self._watchers:
            fn(True, entry)

    def share_pages(self, hvpfns: Sequence[HvPfn], via: str, key: Hashable, since: int, cpu: int) -> None:
        """Record scattered pages, in their order, as runs as long as possible.

        :raises LedgerError: as :meth:`share`; pages before the bad one stay recorded.
        """
        if len(hvpfns) == 1:
            self.share(hvpfns[0], 1, via, key, since, cpu)
            return
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
        ended = (runs[0][1],) if len(runs) == 1 else tuple([entry for _, entry in runs])
        self._unmark(ended)
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
        count = self._marks[hvpfn] if 0 <= hvpfn < self._pages else 0
        return count if count < _MANY else self._scan(hvpfn)

    def host_can_reach(self, hvpfn: HvPfn) -> bool:
        """True if at least one share contains page `hvpfn`."""
        return 0 <= hvpfn < self._pages and self._marks[hvpfn] != 0

    def first_shared(self, hvpfn: HvPfn, pages: int) -> HvPfn | None:
        """The lowest page of `pages` pages from `hvpfn` on that a share contains, None without one."""
        if pages == 1 and 0 <= hvpfn < self._pages:
            return hvpfn if self._marks[hvpfn] else None
        first = max(hvpfn, 0)
        marks = self._marks[first : max(hvpfn + pages, 0)]
        free = len(marks) - len(marks.lstrip(b"\0"))
        return None if free == len(marks) else HvPfn(first + free)

    def _scan(self, hvpfn: int) -> int:
        gpa = hvpfn << HV_HYP_PAGE_SHIFT
        return sum(
            entry.gpa <= gpa < entry.gpa + (entry.pages << HV_HYP_PAGE_SHIFT)
            for runs in self._runs.values()
            for _, entry in runs
        )

    def _mark(self, first: int, pages: int) -> None:
        marks = self._marks
        if pages == 1:
            if marks[first] < _MANY:
                marks[first] += 1
        else:
            marks[first : first + pages] = marks[first : first + pages].translate(_MORE)

    def _unmark(self, ended: tuple[LedgerEntry, ...]) -> None:
        """Count pages of shares less that are out of the list already."""
        marks = self._marks
        full = False
        for entry in ended:
            first, pages = entry.gpa >> HV_HYP_PAGE_SHIFT, entry.pages
            if pages == 1:
                if marks[first] < _MANY:
                    marks[first] -= 1
                else:
                    full = True
            else:
                marks[first : first + pages] = marks[first : first + pages].translate(_LESS)
                full = True
        if not full:
            return
        for entry in ended:
            first = entry.gpa >> HV_HYP_PAGE_SHIFT
            at = marks.find(_MANY, first, first + entry.pages)
            while at >= 0:
                marks[at] = min(self._scan(at), _MANY)
                at = marks.find(_MANY, at + 1, first + entry.pages)

    def __len__(self) -> int:
        return sum(len(runs) for runs in self._runs.values())


def _order(pair: tuple[int, LedgerEntry]) -> int:
    return pair[0]
