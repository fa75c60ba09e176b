"""gfp.h, mm.h, vmalloc.h, highmem.h: guest memory in guest pages.

All memory that the firmware's map calls RAM is given out, but for the ranges that boot reserves. What never reaches the
host (kmalloc) is ordinary Python and not modelled here. NUMA: a ``node`` may be asked for and is not obeyed; which
node's memory the kernel would give is *unspecified* by the firmware tables that the model has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.mm import Page
from hvkernel.linux.buddy import Buddy
from hvkernel.machine import Accessor, Vmap
from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory

E820_RAM: Final = 1
"""Source: arch/x86/include/asm/e820/types.h; firmware.memory_map uses these numbers on every architecture."""

LOW_RESERVED: Final = 1 << 20
"""The first MiB is never given out. Source: arch/x86/kernel/setup.c:reserve_real_mode; a choice of ours elsewhere."""

VMALLOC_RESERVE: Final = 128 << 20
"""Room that a 32-bit kernel keeps above its lowmem mapping. Source: arch/x86/mm/pgtable_32.c:__VMALLOC_RESERVE."""


def lowmem_end(page_offset: int) -> int:
    """First byte that a 32-bit kernel with ``PAGE_OFFSET`` has no permanent mapping of (896 MiB for 3 GiB).

    Source: arch/x86/include/asm/pgtable_32_areas.h:MAXMEM.
    """
    return (1 << 32) - page_offset - VMALLOC_RESERVE


class Mm:
    """``kernel.mm``."""

    def __init__(
        self,
        memory: Memory,
        page_shift: int,
        memory_map: Iterable[tuple[int, int, int]],
        *,
        max_order: int,
        finding: Callable[[str, str], None],
        before_alloc: Callable[[bool], None],
        lowmem_limit: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        """:param page_shift: 12, 14 or 16.
        :param max_order: largest order that can be asked for (MAX_ORDER - 1).
        :param lowmem_limit: first byte without permanent mapping (32-bit), None on 64-bit.
        :param memory_limit: first byte the page tables cannot reach, None without such a limit.
        :param before_alloc: called with ``atomic`` before each allocation (might_sleep and preemption point).
        :raises ValueError: page size not a multiple of 4 KiB, or no usable memory.
        """
        if page_shift < HV_HYP_PAGE_SHIFT:
            raise ValueError(f"page shift {page_shift} is below {HV_HYP_PAGE_SHIFT}: no kernel has such pages")
        self.PAGE_SHIFT = page_shift
        self.PAGE_SIZE = 1 << page_shift
        self._memory = memory
        self.memory: Accessor = memory.guest
        self._finding = finding
        self._before_alloc = before_alloc
        self._ratio_shift = page_shift - HV_HYP_PAGE_SHIFT
        self.max_order = max_order
        self.lowmem_limit = lowmem_limit
        self.usable = self._usable(memory_map, memory_limit)
        """RAM that the kernel uses: ``(start, end)`` bytes, whole guest pages, ascending."""
        self._reserved: list[tuple[int, int, str]] = []
        self._zones: tuple[Buddy, ...] = ()
        self._low: tuple[Buddy, ...] = ()
        self._live: dict[int, Page] = {}
        self._callers: dict[tuple[int, int], tuple[str, CodeType]] = {}
        """What :attr:`Page.caller` says, by the code's id and the instruction, with the code: while it is kept, its id
        is nobody else's."""
        self.fail_nth = 0
        """Make the n-th allocation from now fail (1 is the next one); 0: none."""
        self.alloc_count = 0
        """Allocations asked for so far."""
        if not self.usable:
            raise ValueError("the firmware's memory map has no usable RAM")
        self.reserve(0, LOW_RESERVED, "first MiB")

    def _usable(self, memory_map: Iterable[tuple[int, int, int]], limit: int | None) -> list[tuple[int, int]]:
        mask = self.PAGE_SIZE - 1
        out: list[tuple[int, int]] = []
        for start, size, kind in sorted(memory_map):
            if kind != E820_RAM:
                continue
            end = start + size
            if limit is not None:
                end = min(end, limit)
            start, end = (start + mask) & ~mask, end & ~mask
            if start >= end:
                continue
            if out and out[-1][1] == start:
                out[-1] = (out[-1][0], end)
            else:
                out.append((start, end))
        return out

    # before the allocator is up --------------------------------------------------------------------------------

    def reserve(self, start: int, size: int, name: str) -> None:
        """memblock_reserve(): never give these bytes out. Before :meth:`mm_init` only.

        :raises RuntimeError: when the allocator is up already.
        """
        if self._zones:
            raise RuntimeError(f"reserve({start:#x}, {size:#x}, {name!r}) after mm_init")
        self._reserved.append((start, start + size, name))

    def memblock_alloc(self, size: int, name: str) -> int:
        """Take zeroed memory that lives as long as the kernel; return its address. Before :meth:`mm_init` only.

        :param size: bytes, a multiple of PAGE_SIZE.

        It comes from above 16 MiB, where the kernel's image lies, ascending (*unspecified*).
        :raises RuntimeError: there is no room.
        """
        for start, end in self.usable:
            at = (max(start, 16 << 20) + self.PAGE_SIZE - 1) & -self.PAGE_SIZE
            while at + size <= end:
                taken = [stop for begin, stop, _ in self._reserved if begin < at + size and stop > at]
                if not taken:
                    self.reserve(at, size, name)
                    self.memory.write(at, bytes(size))
                    return at
                at = (max(taken) + self.PAGE_SIZE - 1) & -self.PAGE_SIZE
        raise RuntimeError(f"memblock_alloc({size:#x}, {name!r}): no room")

    def mm_init(self) -> None:
        """Hand the free memory to the allocator. Source: mm/memblock.c:memblock_free_all."""
        shift, mask = self.PAGE_SHIFT, self.PAGE_SIZE - 1
        holes = sorted((start & ~mask, (end + mask) & ~mask) for start, end, _ in self._reserved)
        low: list[tuple[int, int]] = []
        high: list[tuple[int, int]] = []
        for start, end in self.usable:
            for hole_start, hole_end in holes:
                if hole_end <= start or hole_start >= end:
                    continue
                if hole_start > start:
                    self._split(start, hole_start, low, high)
                start = max(start, hole_end)
                if start >= end:
                    break
            if start < end:
                self._split(start, end, low, high)

        def pfns(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
            return [(a >> shift, b >> shift) for a, b in ranges]

        normal = Buddy("Normal", pfns(low), self.max_order)
        self._low = (normal,)
        self._zones = (Buddy("HighMem", pfns(high), self.max_order), normal) if high else (normal,)

    def _split(self, start: int, end: int, low: list[tuple[int, int]], high: list[tuple[int, int]]) -> None:
        limit = self.lowmem_limit
        if limit is None or end <= limit:
            low.append((start, end))
        elif start >= limit:
            high.append((start, end))
        else:
            low.append((start, limit))
            high.append((limit, end))

    @property
    def up(self) -> bool:
        """True after :meth:`mm_init`."""
        return bool(self._zones)

    # allocation ------------------------------------------------------------------------------------------------

    def alloc_pages(
        self, order: int = 0, *, zero: bool = False, lowmem: bool = False, node: int | None = None, atomic: bool = False
    ) -> Page | None:
        """``2 ** order`` pages in one piece, or None. See :class:`hvkernel.api.guest.mm.Mm`."""
        del node
        self._before_alloc(atomic)
        self.alloc_count += 1
        if self.fail_nth:
            self.fail_nth -= 1
            if not self.fail_nth:
                return None
        if not 0 <= order <= self.max_order:
            if order > self.max_order:
                self._finding(
                    "bad-allocation", f"WARNING: alloc_pages of order {order}, the largest is {self.max_order}"
                )
            return None
        zones = self._low if lowmem else self._zones
        for zone in zones:
            pfn = zone.alloc(order)
            if pfn is not None:
                break
        else:
            if not self._zones:
                raise RuntimeError("alloc_pages before mm_init")
            return None
        frame = sys._getframe(1)
        if frame.f_globals is globals() and frame.f_back is not None:
            frame = frame.f_back
        place = (id(frame.f_code), frame.f_lasti)
        caller = self._callers.get(place)
        if caller is None:
            text = f"{frame.f_code.co_name}:{frame.f_lineno} ({frame.f_globals['__name__']})"
            caller = self._callers[place] = (text, frame.f_code)
        gpa = pfn << self.PAGE_SHIFT
        size = self.PAGE_SIZE << order
        high = self.lowmem_limit is not None and gpa >= self.lowmem_limit
        page = Page(pfn, gpa, order, size, high, caller[0])
        hvpfn = HvPfn(gpa >> HV_HYP_PAGE_SHIFT)
        self._memory.set_live(hvpfn, size >> HV_HYP_PAGE_SHIFT, True)
        if zero:
            self.memory.zero(gpa, size)
        self._live[pfn] = page
        return page

    def alloc_page(self, *, zero: bool = False, lowmem: bool = True) -> Page | None:
        """One page, mapped unless ``lowmem`` is False."""
        return self.alloc_pages(0, zero=zero, lowmem=lowmem)

    def get_zeroed_page(self, *, atomic: bool = False) -> Page | None:
        """One zeroed page, mapped."""
        return self.alloc_pages(0, zero=True, lowmem=True, atomic=atomic)

    def free_pages(self, page: Page) -> None:
        """Give back. A double free, a foreign page and a page that the host can still reach are findings."""
        if page.freed or self._live.get(page.pfn) is not page:
            self._finding("double-free", f"BUG: free of {page!r}, which is not allocated (allocated at {page.caller})")
            return
        del self._live[page.pfn]
        page.freed = True
        first = page.gpa >> HV_HYP_PAGE_SHIFT
        count = page.size >> HV_HYP_PAGE_SHIFT
        shared = self._memory.ledger.first_shared(HvPfn(first), count)
        if shared is not None:
            via = ", ".join(sorted({e.via for e in self._memory.ledger.shares_of(shared)}))
            self._finding(
                "free-of-shared-page",
                f"BUG: {page!r} freed while the host can reach 4 KiB page {shared:#x} (via {via})",
            )
        self._memory.set_live(HvPfn(first), count, False)
        zones = self._zones
        zone = zones[0] if page.highmem and len(zones) > 1 else zones[-1]
        zone.free(page.pfn, page.order)

    # mappings --------------------------------------------------------------------------------------------------

    def vmap(self, pages: Sequence[Page]) -> Vmap:
        """Map allocations in a row, each in full. :raises ValueError: for a freed page or none at all."""
        hvpfns: list[HvPfn] = []
        for page in pages:
            if page.freed:
                self._finding("use-after-free", f"BUG: vmap of freed {page!r}")
            first = page.gpa >> HV_HYP_PAGE_SHIFT
            hvpfns += [HvPfn(n) for n in range(first, first + (page.size >> HV_HYP_PAGE_SHIFT))]
        return Vmap(self._memory, "guest", hvpfns)

    def vmap_hvpfns(self, hvpfns: Sequence[int]) -> Vmap:
        """Map 4 KiB pages in a row."""
        return Vmap(self._memory, "guest", [HvPfn(n) for n in hvpfns])

    def page_to_hvpfn(self, page: Page) -> int:
        """4 KiB page number of the first byte of ``page``."""
        return page.gpa >> HV_HYP_PAGE_SHIFT

    # reports ---------------------------------------------------------------------------------------------------

    def totalram_pages(self) -> int:
        """Guest pages that were handed to the allocator."""
        return sum(zone.total for zone in self._zones)

    def nr_free_pages(self) -> int:
        """Guest pages free now."""
        return sum(zone.free_pages for zone in self._zones)

    def leaks(self) -> list[Page]:
        """What is allocated now, oldest first: after everything was torn down, a leak."""
        return list(self._live.values())
