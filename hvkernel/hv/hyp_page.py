"""``hv_alloc_hyperv_page`` of ``drivers/hv/hv_common.c``: memory of exactly one Hyper-V page.

Where the guest's pages are 4 KiB it is a page. Where they are larger it comes from kmalloc, whose objects of 4 KiB are
aligned to 4 KiB; which object of which page it is depends on the slab allocator and is *unspecified*: here guest pages
are cut into 4 KiB pieces that are handed out in ascending order and reused last freed first.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvkernel.abi.tlfs import HV_HYP_PAGE_SIZE
from hvkernel.api.guest.mm import Accessor, Mm, Page

__all__ = ["HypPage", "HypPages"]


@dataclass(slots=True, eq=False)
class HypPage:
    """4 KiB that may be shared with the host."""

    gpa: int
    """Guest physical byte address, 4 KiB aligned."""
    page: Page
    """The guest page that it is, or is a part of."""


class HypPages:
    """The allocator of one guest."""

    __slots__ = ("_free", "_memory", "_mm")

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._memory: Accessor = mm.memory
        self._free: list[HypPage] = []

    def alloc(self, *, zero: bool = False, atomic: bool = False) -> HypPage | None:
        """Return a page, or ``None`` when there is no memory."""
        if self._mm.PAGE_SIZE == HV_HYP_PAGE_SIZE:
            page = self._mm.alloc_pages(0, zero=zero, lowmem=True, atomic=atomic)
            return None if page is None else HypPage(page.gpa, page)
        if not self._free:
            page = self._mm.alloc_pages(0, lowmem=True, atomic=atomic)
            if page is None:
                return None
            last = page.gpa + self._mm.PAGE_SIZE - HV_HYP_PAGE_SIZE
            self._free = [HypPage(gpa, page) for gpa in range(last, page.gpa - 1, -HV_HYP_PAGE_SIZE)]
        piece = self._free.pop()
        if zero:
            self._memory.write(piece.gpa, bytes(HV_HYP_PAGE_SIZE))
        return piece

    def free(self, piece: HypPage) -> None:
        """Give a page back."""
        if self._mm.PAGE_SIZE == HV_HYP_PAGE_SIZE:
            self._mm.free_pages(piece.page)
        else:
            self._free.append(piece)
