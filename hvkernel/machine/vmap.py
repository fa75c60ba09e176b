"""Virtually contiguous ranges of guest memory: a list of 4 KiB pages addressed by byte offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvkernel.machine.accessor import Accessor, Side, View, misfit, to_bytes
from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory


def _run_ends(hvpfns: Sequence[HvPfn]) -> list[int]:
    """For each page of a mapping, the offset at which its run of neighbouring pages ends."""
    ends = [0] * len(hvpfns)
    end = len(ends) << HV_HYP_PAGE_SHIFT
    following = hvpfns[-1] + 1
    for at in range(len(ends) - 1, -1, -1):
        hvpfn = hvpfns[at]
        if hvpfn + 1 != following:
            end = (at + 1) << HV_HYP_PAGE_SHIFT
        ends[at] = end
        following = hvpfn
    return ends


class Vmap:
    """4 KiB pages of guest memory as one range of byte offsets: the counterpart of the kernel's vmap().

    A page that stands in the list twice appears twice (the ring buffer maps its data so). Offsets outside the range
    are ValueError: they are a bug of the caller, not a fault of the model. Any use after :meth:`unmap` is a
    MachineError.
    """

    __slots__ = (
        "_bases",
        "_door",
        "_ends",
        "_flags",
        "_m16",
        "_m32",
        "_m64",
        "_map",
        "_memory",
        "hvpfns",
        "side",
        "size",
    )

    def __init__(self, memory: Memory, side: Side, hvpfns: Sequence[HvPfn]) -> None:
        if not len(hvpfns):
            raise ValueError("hvpfns: empty; a mapping needs at least one page")
        flags = memory._flags
        pages = len(flags)
        for hvpfn in hvpfns:
            if not 0 <= hvpfn < pages or flags[hvpfn]:
                memory._check(hvpfn << HV_HYP_PAGE_SHIFT, 1, False, side)
        self._memory = memory
        self._door: Accessor = memory.guest if side == "guest" else memory.host
        self._flags = flags
        self._map = memory._map
        self._m16, self._m32, self._m64 = memory._words
        self._bases: list[int] = [hvpfn << HV_HYP_PAGE_SHIFT for hvpfn in hvpfns]
        self._ends = _run_ends(hvpfns)
        self.side: Side = side
        self.hvpfns: tuple[HvPfn, ...] = tuple(hvpfns)
        self.size: int = len(self._bases) << HV_HYP_PAGE_SHIFT
        """Length in bytes."""

    def unmap(self) -> None:
        """End the mapping. Errors: MachineError if it has ended already."""
        if not self._bases:
            raise MachineError(f"vunmap of a {len(self.hvpfns)}-page mapping that was unmapped before")
        self._bases = []

    @property
    def mapped(self) -> bool:
        """False after :meth:`unmap`."""
        return bool(self._bases)

    def gpa(self, off: int) -> int:
        """The guest physical address of offset `off`."""
        self._bound(off, 1)
        return self._bases[off >> 12] + (off & 0xFFF)

    def _bound(self, off: int, n: int) -> None:
        if not self._bases:
            raise MachineError(f"use of a {len(self.hvpfns)}-page mapping after vunmap (offset {off:#x}, {n} bytes)")
        if off < 0 or n < 0 or off + n > self.size:
            raise ValueError(f"offset {off:#x}, {n} bytes: outside the mapping of {self.size:#x} bytes")

    def _runs(self, off: int, n: int, write: bool) -> list[tuple[int, int]]:
        """(gpa, length) pieces of a range, checked. Neighbouring pages are joined."""
        self._bound(off, n)
        pieces: list[tuple[int, int]] = []
        while n:
            page = off >> 12
            gpa = self._bases[page] + (off & 0xFFF)
            size = min(n, self._ends[page] - off)
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
            if n > 0 <= off and off + n <= self._ends[page]:
                gpa = self._bases[page] + (off & 0xFFF)
                flags = self._flags
                first = gpa >> 12
                last = (gpa + n - 1) >> 12
                if not flags[first] and (
                    first == last or (not flags[last] and flags.count(0, first, last + 1) == last + 1 - first)
                ):
                    return self._map[gpa : gpa + n]
        except IndexError:
            pass
        return b"".join([self._map[gpa : gpa + size] for gpa, size in self._runs(off, n, False)])

    def write(self, off: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` (of bytes) at offset `off`."""
        n = len(data)
        try:
            page = off >> 12
            if n > 0 <= off and off + n <= self._ends[page]:
                gpa = self._bases[page] + (off & 0xFFF)
                flags = self._flags
                first = gpa >> 12
                last = (gpa + n - 1) >> 12
                if not flags[first] and (
                    first == last or (not flags[last] and flags.count(0, first, last + 1) == last + 1 - first)
                ):
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
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off >= 0:
                return self._map[gpa]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 1), "little")

    def load16(self, off: int) -> int:
        """The 16-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 1 and off >= 0:
                return self._m16[gpa >> 1]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 2), "little")

    def load32(self, off: int) -> int:
        """The 32-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 3 and off >= 0:
                return self._m32[gpa >> 2]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 4), "little")

    def load64(self, off: int) -> int:
        """The 64-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 7 and off >= 0:
                return self._m64[gpa >> 3]
        except IndexError:
            pass
        return int.from_bytes(self.read(off, 8), "little")

    def store8(self, off: int, v: int) -> None:
        """Put the 8-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off >= 0:
                self._map[gpa] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError, OverflowError):
            raise misfit(8, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 1, "offset", off))

    def store16(self, off: int, v: int) -> None:
        """Put the 16-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 1 and off >= 0:
                self._m16[gpa >> 1] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(16, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 2, "offset", off))

    def store32(self, off: int, v: int) -> None:
        """Put the 32-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 3 and off >= 0:
                self._m32[gpa >> 2] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(32, f"offset {off:#x}", v) from None
        self.write(off, to_bytes(v, 4, "offset", off))

    def store64(self, off: int, v: int) -> None:
        """Put the 64-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and not off & 7 and off >= 0:
                self._m64[gpa >> 3] = v
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
