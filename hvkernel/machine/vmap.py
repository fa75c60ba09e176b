"""Virtually contiguous ranges of guest memory: a list of 4 KiB pages addressed by byte offset."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from hvkernel.machine.accessor import Accessor, Side, View, misfit, to_bytes
from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory


def _compact(hvpfns: Sequence[HvPfn]) -> array[int]:
    """The page numbers at 4 bytes each: rings are mapped for as long as their channel is open.

    :raises OverflowError: a number that is no page number.
    """
    return array("I", hvpfns)


def _run_ends(pages: array[int]) -> list[int]:
    """The index behind each run of neighbouring pages, in order."""
    return [*(at for at, (one, following) in enumerate(pairwise(pages), 1) if one + 1 != following), len(pages)]


class Word:
    """An aligned 32-bit integer of a mapping, for whoever looks at it often: what load32() and store32() do there."""

    __slots__ = ("_flags", "_index", "_m32", "_off", "_page", "_vmap")

    def __init__(self, vmap: Vmap, off: int) -> None:
        hvpfn = vmap._pages[off >> 12]
        self._vmap = vmap
        self._off = off
        self._flags: bytearray | bytes = vmap._flags
        self._page: int = hvpfn
        self._m32 = vmap._m32
        self._index = hvpfn << 10 | (off & 0xFFF) >> 2

    def load(self) -> int:
        """The integer."""
        try:
            if not self._flags[self._page]:
                return self._m32[self._index]
        except IndexError:
            pass
        return self._vmap.load32(self._off)

    def store(self, v: int) -> None:
        """Put `v` there. Errors: ValueError if it does not fit."""
        try:
            if not self._flags[self._page]:
                self._m32[self._index] = v
                return
        except (IndexError, ValueError, TypeError):
            pass
        self._vmap.store32(self._off, v)

    def _unmapped(self) -> None:
        """From now on the mapping says what is wrong."""
        self._flags, self._page = b"\1", 0


class Vmap:
    """4 KiB pages of guest memory as one range of byte offsets: the counterpart of the kernel's vmap().

    A page that stands in the list twice appears twice (the ring buffer maps its data so). Offsets outside the range
    are ValueError: they are a bug of the caller, not a fault of the model. Any use after :meth:`unmap` is a
    MachineError.
    """

    __slots__ = (
        "_door",
        "_ends",
        "_flags",
        "_handed_out",
        "_m16",
        "_m32",
        "_m64",
        "_map",
        "_memory",
        "_numbers",
        "_pages",
        "side",
        "size",
    )

    def __init__(self, memory: Memory, side: Side, hvpfns: Sequence[HvPfn]) -> None:
        if not len(hvpfns):
            raise ValueError("hvpfns: empty; a mapping needs at least one page")
        flags = memory._flags
        try:
            numbers = _compact(hvpfns)
        except OverflowError:
            for hvpfn in hvpfns:
                memory._check(hvpfn << HV_HYP_PAGE_SHIFT, 1, False, side)
            raise
        ends = _run_ends(numbers)
        at = 0
        for end in ends:
            first = numbers[at]
            if flags.count(0, first, first + end - at) != end - at:
                for number in numbers[at:end]:
                    memory._check(number << HV_HYP_PAGE_SHIFT, 1, False, side)
            at = end
        self._memory = memory
        self._door: Accessor = memory.guest if side == "guest" else memory.host
        self._flags = flags
        self._map = memory._map
        self._m16, self._m32, self._m64 = memory._words
        self._numbers = numbers
        self._pages = numbers  # empty after unmap()
        self._ends = ends
        self._handed_out: tuple[Word, ...] = ()
        self.side: Side = side
        self.size: int = len(numbers) << HV_HYP_PAGE_SHIFT
        """Length in bytes."""

    @property
    def hvpfns(self) -> tuple[HvPfn, ...]:
        """The 4 KiB pages in order, also after :meth:`unmap`."""
        return cast("tuple[HvPfn, ...]", tuple(self._numbers))

    def unmap(self) -> None:
        """End the mapping. Errors: MachineError if it has ended already."""
        if not self._pages:
            raise MachineError(f"vunmap of a {len(self._numbers)}-page mapping that was unmapped before")
        self._pages = array("I")
        for word in self._handed_out:
            word._unmapped()

    @property
    def mapped(self) -> bool:
        """False after :meth:`unmap`."""
        return bool(self._pages)

    def gpa(self, off: int) -> int:
        """The guest physical address of offset `off`."""
        self._bound(off, 1)
        return self._pages[off >> 12] << 12 | off & 0xFFF

    def _bound(self, off: int, n: int) -> None:
        if not self._pages:
            raise MachineError(f"use of a {len(self._numbers)}-page mapping after vunmap (offset {off:#x}, {n} bytes)")
        if off < 0 or n < 0 or off + n > self.size:
            raise ValueError(f"offset {off:#x}, {n} bytes: outside the mapping of {self.size:#x} bytes")

    def _runs(self, off: int, n: int, write: bool) -> list[tuple[int, int]]:
        """(gpa, length) pieces of a range, checked. Neighbouring pages are joined."""
        self._bound(off, n)
        pieces: list[tuple[int, int]] = []
        while n:
            page = off >> 12
            gpa = self._pages[page] << 12 | off & 0xFFF
            size = min(n, (self._ends[bisect_right(self._ends, page)] << 12) - off)
            self._memory._check(gpa, size, write, self.side)
            pieces.append((gpa, size))
            off += size
            n -= size
        return pieces

    # -- bytes ----------------------------------------------------------------

    def read(self, off: int, n: int) -> bytes:
        """The `n` bytes at offset `off`."""
        try:
            page = off >> 12
            last = off + n - 1 >> 12
            if n > 0 <= off:
                hvpfn = self._pages[page]
                if (
                    not self._flags[hvpfn]
                    if page == last
                    else last < self._ends[bisect_right(self._ends, page)]
                    and self._flags.count(0, hvpfn, hvpfn + last - page + 1) == last - page + 1
                ):
                    gpa = hvpfn << 12 | off & 0xFFF
                    return self._map[gpa : gpa + n]
        except IndexError:
            pass
        return b"".join([self._map[gpa : gpa + size] for gpa, size in self._runs(off, n, False)])

    def write(self, off: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` (of bytes) at offset `off`."""
        n = len(data)
        try:
            page = off >> 12
            last = off + n - 1 >> 12
            if n > 0 <= off:
                hvpfn = self._pages[page]
                if (
                    not self._flags[hvpfn]
                    if page == last
                    else last < self._ends[bisect_right(self._ends, page)]
                    and self._flags.count(0, hvpfn, hvpfn + last - page + 1) == last - page + 1
                ):
                    gpa = hvpfn << 12 | off & 0xFFF
                    self._map[gpa : gpa + n] = data
                    return
        except IndexError:
            pass
        at = 0
        for gpa, size in self._runs(off, n, True):
            self._map[gpa : gpa + size] = data[at : at + size]
            at += size

    def zero(self, off: int, n: int) -> None:
        """Clear the `n` bytes at offset `off`."""
        for gpa, size in self._runs(off, n, True):
            self._memory._zero(gpa, size)

    def view(self, off: int, n: int, *, writable: bool = True) -> View:
        """As :meth:`Accessor.view`; the range must be contiguous in guest physical memory, else ValueError."""
        pieces = self._runs(off, n, writable)
        if len(pieces) != 1:
            raise ValueError(f"offset {off:#x}, {n} bytes: {len(pieces)} separate pieces of memory, a view needs one")
        return self._door.view(pieces[0][0], n, writable=writable)

    # -- integers -------------------------------------------------------------

    def load8(self, off: int) -> int:
        """The 8-bit integer at offset `off`."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and off >= 0:
                return self._map[hvpfn << 12 | off & 0xFFF]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 1), "little")

    def load16(self, off: int) -> int:
        """The 16-bit integer at offset `off`."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 1 and off >= 0:
                return self._m16[hvpfn << 11 | (off & 0xFFF) >> 1]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 2), "little")

    def load32(self, off: int) -> int:
        """The 32-bit integer at offset `off`."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 3 and off >= 0:
                return self._m32[hvpfn << 10 | (off & 0xFFF) >> 2]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 4), "little")

    def load64(self, off: int) -> int:
        """The 64-bit integer at offset `off`."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 7 and off >= 0:
                return self._m64[hvpfn << 9 | (off & 0xFFF) >> 3]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 8), "little")

    def word32(self, off: int) -> Word:
        """The 32-bit integer at offset `off`, to be looked at often. Errors: ValueError if it is not aligned."""
        if off & 3:
            raise ValueError(f"offset {off:#x} is not a multiple of 4")
        self._bound(off, 4)
        word = Word(self, off)
        self._handed_out = (*self._handed_out, word)
        return word

    def store8(self, off: int, v: int) -> None:
        """Put the 8-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and off >= 0:
                self._map[hvpfn << 12 | off & 0xFFF] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError, OverflowError):
            raise misfit(8, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 1, "offset", off))

    def store16(self, off: int, v: int) -> None:
        """Put the 16-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 1 and off >= 0:
                self._m16[hvpfn << 11 | (off & 0xFFF) >> 1] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(16, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 2, "offset", off))

    def store32(self, off: int, v: int) -> None:
        """Put the 32-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 3 and off >= 0:
                self._m32[hvpfn << 10 | (off & 0xFFF) >> 2] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(32, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 4, "offset", off))

    def store64(self, off: int, v: int) -> None:
        """Put the 64-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            hvpfn = self._pages[off >> 12]
            if not self._flags[hvpfn] and not off & 7 and off >= 0:
                self._m64[hvpfn << 9 | (off & 0xFFF) >> 3] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(64, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 8, "offset", off))

    # -- read-modify-write ----------------------------------------------------

    def _bit(self, off: int, bit: int) -> int:
        if bit < 0:
            raise ValueError(f"bit: {bit} is negative")
        return self.gpa(off + (bit >> 3))

    def sync_set_bit(self, off: int, bit: int) -> None:
        """As :meth:`Accessor.sync_set_bit`."""
        self._door.sync_set_bit(self._bit(off, bit), bit & 7)

    def sync_clear_bit(self, off: int, bit: int) -> None:
        """As :meth:`Accessor.sync_clear_bit`."""
        self._door.sync_clear_bit(self._bit(off, bit), bit & 7)

    def sync_test_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_bit`."""
        return self._door.sync_test_bit(self._bit(off, bit), bit & 7)

    def sync_test_and_set_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_and_set_bit`."""
        return self._door.sync_test_and_set_bit(self._bit(off, bit), bit & 7)

    def sync_test_and_clear_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_and_clear_bit`."""
        return self._door.sync_test_and_clear_bit(self._bit(off, bit), bit & 7)

    def xchg32(self, off: int, v: int) -> int:
        """As :meth:`Accessor.xchg32`."""
        found = self.load32(off)
        self.store32(off, v)
        return found

    def cmpxchg32(self, off: int, old: int, new: int) -> int:
        """As :meth:`Accessor.cmpxchg32`."""
        found = self.load32(off)
        self.store32(off, new if found == old else found)
        return found
