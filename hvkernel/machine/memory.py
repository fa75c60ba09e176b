"""Guest physical memory: one memfd per machine, in 4 KiB granules.

File offset and guest physical address are the same number, holes of the memory map are holes of the file. Every 4 KiB
page has one byte of flags; a page without flags is plain RAM, and the accessors look no further.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from io import FileIO
from types import MappingProxyType
from typing import Final

from hvkernel.machine.accessor import Accessor, Side
from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE, OFFSET_IN_HVPAGE, HvPfn
from hvkernel.machine.faults import MachineError, PageFault, ProtectionFault
from hvkernel.machine.ledger import Ledger
from hvkernel.machine.overlay import Overlays
from hvkernel.machine.ringmap import Libc, RingMapping
from hvkernel.machine.vmap import Vmap

MAX_GPA: Final = 1 << 40
"""Guest memory must end at or below 1 TiB: the model keeps one byte of flags per page. A limit of this model."""

_HOLE: Final = 0x01
_OVERLAY_RO: Final = 0x02
_HIDDEN: Final = 0x04
_GUEST_NO_READ: Final = 0x08
_GUEST_NO_WRITE: Final = 0x10
_HOST_NO_READ: Final = 0x20
_HOST_NO_WRITE: Final = 0x40
_DEAD: Final = 0x80
_LIVE_AGAIN: Final = bytes(n & ~_DEAD & 0xFF for n in range(256))
_NOW_DEAD: Final = bytes(n | _DEAD for n in range(256))

_DENY: Final = MappingProxyType(
    {
        ("guest", False): _HOLE | _GUEST_NO_READ,
        ("guest", True): _HOLE | _OVERLAY_RO | _GUEST_NO_WRITE,
        ("host", False): _HOLE | _HIDDEN | _HOST_NO_READ,
        ("host", True): _HOLE | _HIDDEN | _HOST_NO_WRITE,
    }
)

_PUNCH: Final = 1 << 16
"""From this many bytes on, clearing memory punches a hole in the file instead of writing zeros."""


def _ram_ranges(ram: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    ranges = sorted((int(start), int(size)) for start, size in ram)
    if not ranges:
        raise ValueError("ram: no ranges; a machine needs at least one (start, size)")
    end = 0
    for start, size in ranges:
        what = f"ram: range (start={start:#x}, size={size:#x})"
        if start < 0 or (start | size) & OFFSET_IN_HVPAGE:
            raise ValueError(f"{what} is not a multiple of {HV_HYP_PAGE_SIZE} bytes from address 0 up")
        if size <= 0:
            raise ValueError(f"{what} is empty")
        if start < end:
            raise ValueError(f"{what} overlaps the range before it, which ends at {end:#x}")
        end = start + size
        if end > MAX_GPA:
            raise ValueError(f"{what} ends at {end:#x}, the limit is {MAX_GPA:#x}")
    return tuple(ranges)


class Memory:
    """The physical memory of one guest.

    :param ram: (start, size) ranges in bytes, multiples of 4096, not overlapping, in any order.
    :param report: called with (kind, side, text) for an access to a page marked dead.
    :raises ValueError: bad ranges, naming the range and the limit.
    """

    __slots__ = (
        "_closed",
        "_file",
        "_flags",
        "_libc",
        "_map",
        "_report",
        "_rings",
        "_views",
        "_watches",
        "_window",
        "_words",
        "guest",
        "host",
        "hvpfn_end",
        "ledger",
        "overlays",
        "ram",
        "size",
    )

    def __init__(self, ram: Iterable[tuple[int, int]], report: Callable[[str, Side, str], None] | None = None) -> None:
        self.ram = _ram_ranges(ram)
        """The RAM ranges, ascending."""
        end = self.ram[-1][0] + self.ram[-1][1]
        self.hvpfn_end: Final = HvPfn(end >> HV_HYP_PAGE_SHIFT)
        """The first page number past the last RAM range."""
        self.size: int = sum(size for _, size in self.ram)
        """Bytes of RAM."""
        self._report = report
        self._closed = False
        self._views = 0
        self._rings: list[RingMapping] = []
        self._libc: Libc | None = None
        if sys.byteorder != "little":
            raise MachineError("guest memory is little-endian and read in place; this computer is big-endian")
        self._watches: dict[int, Callable[[], None]] = {}
        self._flags = bytearray(self.hvpfn_end)
        at = 0
        for start, size in self.ram:
            if start > at:
                self._or_flags(at >> HV_HYP_PAGE_SHIFT, (start - at) >> HV_HYP_PAGE_SHIFT, _HOLE)
            at = start + size
        self._file = FileIO(os.memfd_create("hvkernel-guest", os.MFD_CLOEXEC), "r+b")
        self._file.truncate(end)
        self._map = mmap.mmap(self._file.fileno(), end)
        self._window = memoryview(self._map)
        self._words: tuple[memoryview, ...] = (
            self._window.cast("H"),
            self._window.cast("I"),
            self._window.cast("Q"),
        )
        self.ledger = Ledger(self.hvpfn_end)
        self.overlays = Overlays(self)
        self.guest = Accessor(self, "guest")
        """The guest's door."""
        self.host = Accessor(self, "host")
        """The host's door."""

    # -- what a page allows -----------------------------------------------------

    def is_ram(self, hvpfn: HvPfn) -> bool:
        """True if page `hvpfn` is backed: RAM, or an overlay on a hole."""
        return 0 <= hvpfn < len(self._flags) and not self._flags[hvpfn] & _HOLE

    def protect(self, side: Side, hvpfn: HvPfn, pages: int, *, read: bool, write: bool) -> None:
        """Say what `side` may do with pages from now on. Overlays and visibility forbid on their own account.

        :raises ValueError: pages outside the address space.
        """
        no_read, no_write = (_GUEST_NO_READ, _GUEST_NO_WRITE) if side == "guest" else (_HOST_NO_READ, _HOST_NO_WRITE)
        self._and_flags(hvpfn, pages, ~(no_read | no_write))
        self._or_flags(hvpfn, pages, (0 if read else no_read) | (0 if write else no_write))

    def set_visibility(self, hvpfn: HvPfn, pages: int, visible: bool) -> None:
        """Say whether the host can see pages. All are visible at first; a confidential guest hides its own.

        :raises ValueError: pages outside the address space.
        """
        if visible:
            self._and_flags(hvpfn, pages, ~_HIDDEN)
        else:
            self._or_flags(hvpfn, pages, _HIDDEN)

    def is_visible(self, hvpfn: HvPfn) -> bool:
        """True if the host can see page `hvpfn`."""
        return 0 <= hvpfn < len(self._flags) and not self._flags[hvpfn] & _HIDDEN

    def set_live(self, hvpfn: HvPfn, pages: int, live: bool) -> None:
        """Say whether pages are in use. An access to a page that is not is reported ("use after free") and goes on.

        The guest's page allocator calls it; all pages are live at first.

        :raises ValueError: pages outside the address space.
        """
        if pages == 1 and 0 <= hvpfn < len(self._flags):
            if live:
                self._flags[hvpfn] &= ~_DEAD & 0xFF
            else:
                self._flags[hvpfn] |= _DEAD
        else:
            where = self._range(hvpfn, pages)
            self._flags[where] = self._flags[where].translate(_LIVE_AGAIN if live else _NOW_DEAD)

    def is_live(self, hvpfn: HvPfn) -> bool:
        """False if page `hvpfn` is marked as not in use."""
        return 0 <= hvpfn < len(self._flags) and not self._flags[hvpfn] & _DEAD

    # -- watched pages ----------------------------------------------------------

    def watch(self, hvpfn: HvPfn, touched: Callable[[], None]) -> None:
        """Call ``touched()`` after each :meth:`Accessor.sync_set_bit` of the guest in page `hvpfn`.

        For a hypervisor that looks at a page from time to time (monitor pages): it need not look while nothing was
        set, so that a machine in which nothing happens is idle. One watcher per page; a second one replaces it.

        :raises ValueError: a page outside the address space.
        """
        self._range(hvpfn, 1)
        self._watches[hvpfn] = touched

    def unwatch(self, hvpfn: HvPfn) -> None:
        """End :meth:`watch`; nothing happens when nobody watches."""
        self._watches.pop(hvpfn, None)

    # -- real mappings -----------------------------------------------------------

    @property
    def fd(self) -> int:
        """The memfd, for another process: file offset is guest physical address."""
        if self._closed:
            raise MachineError("the machine's memory is closed")
        return self._file.fileno()

    def map_ring(self, control: Sequence[HvPfn], data: Sequence[HvPfn]) -> RingMapping:
        """Map pages at consecutive addresses of this process: `control` once, then `data` twice.

        Checks and flags do not apply to what is reached through it, so it is for code that cannot use
        accessors: :mod:`hvkernel.ring` kernels. About 10 us.

        :raises PageFault: a page is no RAM.
        :raises MachineError: this computer's pages are larger than 4 KiB, or memory is closed.
        """
        fd = self.fd
        for hvpfn in (*control, *data):
            if not self.is_ram(hvpfn):
                raise PageFault(hvpfn << HV_HYP_PAGE_SHIFT, True, "no RAM here")
        if self._libc is None:
            self._libc = Libc()
        mapping = RingMapping(self._libc, fd, [*control, *data, *data])
        self._rings.append(mapping)
        return mapping

    # -- end ----------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    def close(self) -> bool:
        """Give the memory back. Returns False if a view of it is still alive: that part stays mapped until it dies.

        Any access through an accessor afterwards is a MachineError. Closing again does nothing.
        """
        if self._closed:
            return True
        self._closed = True
        clean = not self._views
        self._flags.clear()
        for ring in self._rings:
            clean &= ring._discard()
        self._rings.clear()
        for window in (*self._words, self._window):
            window.release()
        try:
            self._map.close()
        except BufferError:
            clean = False
        self._file.close()
        return clean

    # -- for this package ------------------------------------------------------------

    def _new_vmap(self, side: Side, hvpfns: Sequence[HvPfn]) -> Vmap:
        return Vmap(self, side, hvpfns)

    def _range(self, hvpfn: int, pages: int) -> slice:
        if self._closed:
            raise MachineError("the machine's memory is closed")
        if hvpfn < 0 or pages < 0 or hvpfn + pages > len(self._flags):
            raise ValueError(
                f"pages {hvpfn:#x}..{hvpfn + pages - 1:#x}: outside the address space, which ends before "
                f"page {len(self._flags):#x}"
            )
        return slice(hvpfn, hvpfn + pages)

    def _or_flags(self, hvpfn: int, pages: int, bits: int) -> None:
        where = self._range(hvpfn, pages)
        if pages == 1:
            self._flags[hvpfn] |= bits
        elif bits and pages:
            self._flags[where] = self._flags[where].translate(bytes(n | bits for n in range(256)))

    def _and_flags(self, hvpfn: int, pages: int, bits: int) -> None:
        where = self._range(hvpfn, pages)
        if pages == 1:
            self._flags[hvpfn] &= bits & 0xFF
        elif pages:
            self._flags[where] = self._flags[where].translate(bytes(n & bits & 0xFF for n in range(256)))

    def _check(self, gpa: int, n: int, write: bool, side: Side) -> None:
        """Raise unless `side` may access `n` bytes at `gpa`; report dead pages."""
        if self._closed:
            raise MachineError(f"access to gpa {gpa:#x} after the machine was closed")
        if n < 0:
            raise ValueError(f"length {n} at gpa {gpa:#x} is negative")
        if gpa < 0:
            raise PageFault(gpa, write, "no RAM here", side)
        if n == 0:
            return
        flags = self._flags
        first = gpa >> HV_HYP_PAGE_SHIFT
        last = (gpa + n - 1) >> HV_HYP_PAGE_SHIFT
        if last >= len(flags):
            outside = max(gpa, len(flags) << HV_HYP_PAGE_SHIFT)
            raise PageFault(outside, write, "no RAM here", side)
        deny = _DENY[side, write]
        if first == last:
            if not flags[first] & (deny | _DEAD):
                return
        elif flags.count(0, first, last + 1) == last + 1 - first:
            return
        dead = -1
        for page in range(first, last + 1):
            bits = flags[page]
            if bits & deny:
                at = max(gpa, page << HV_HYP_PAGE_SHIFT)
                why = self._why(HvPfn(page), bits & deny, write)
                overlay = self.overlays.at(HvPfn(page)) if bits & deny == _OVERLAY_RO else None
                if overlay is not None and overlay.general:
                    raise ProtectionFault(at, why)
                raise PageFault(at, write, why, side)
            if bits & _DEAD and dead < 0:
                dead = page
        if dead >= 0 and self._report is not None:
            at = max(gpa, dead << HV_HYP_PAGE_SHIFT)
            self._report("use-after-free", side, f"{side} {'write to' if write else 'read of'} freed memory at {at:#x}")

    def _why(self, hvpfn: HvPfn, bits: int, write: bool) -> str:
        if bits & _HOLE:
            return "no RAM here"
        if bits & _OVERLAY_RO:
            overlay = self.overlays.at(hvpfn)
            return f"read-only overlay {overlay.name!r}" if overlay else "read-only overlay"
        if bits & _HIDDEN:
            return "not visible to the host"
        return "protected against writing" if write else "protected against reading"

    def _zero(self, gpa: int, n: int) -> None:
        if n >= _PUNCH:
            start = (gpa + OFFSET_IN_HVPAGE) & ~OFFSET_IN_HVPAGE
            end = (gpa + n) & ~OFFSET_IN_HVPAGE
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)
            self._map[gpa:start] = bytes(start - gpa)
            self._map[end : gpa + n] = bytes(gpa + n - end)
        else:
            self._map[gpa : gpa + n] = bytes(n)

    def _swap_page(self, hvpfn: HvPfn, contents: bytes) -> bytes:
        if self._closed:
            raise MachineError("the machine's memory is closed")
        start = hvpfn << HV_HYP_PAGE_SHIFT
        old = self._map[start : start + HV_HYP_PAGE_SIZE]
        self._map[start : start + HV_HYP_PAGE_SIZE] = contents
        return old

    def _set_overlay(self, hvpfn: HvPfn, *, present: bool, readonly: bool) -> None:
        bits = self._flags[hvpfn] & ~(_OVERLAY_RO | _HOLE)
        if readonly:
            bits |= _OVERLAY_RO
        if not present and not self._in_ram(hvpfn):
            bits |= _HOLE
        self._flags[hvpfn] = bits

    def _in_ram(self, hvpfn: HvPfn) -> bool:
        gpa = hvpfn << HV_HYP_PAGE_SHIFT
        return any(start <= gpa < start + size for start, size in self.ram)
