"""The two doors to guest physical memory, and virtually contiguous ranges behind them.

:class:`Accessor` addresses memory by guest physical byte address, :class:`Vmap` by offset into a list of 4 KiB pages.
Both exist once per side (guest, host), because a protection, an overlay or a visibility change forbids one side what
it allows the other. All integers are little-endian. Accesses may be unaligned; one that crosses a page is checked
page by page, and either happens whole or not at all.

Read-modify-write operations are indivisible towards the other tasks of this machine, which only run at
preemption points. They are not towards another *process* that maps the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as struct_error
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HvPfn
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory

Side = Literal["guest", "host"]
"""Which of the two doors."""

_U16: Final = Struct("<H")
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_get16 = _U16.unpack_from
_get32 = _U32.unpack_from
_get64 = _U64.unpack_from
_put16 = _U16.pack_into
_put32 = _U32.pack_into
_put64 = _U64.pack_into


def _misfit(bits: int, where: str, value: object) -> ValueError:
    return ValueError(f"store{bits} at {where}: {value!r} is not an integer of {bits} bits without sign")


class View:
    """A window on contiguous guest memory, for the length of a ``with`` block.

    Leaving the block releases the memoryview, so that a use after it raises ValueError. What was exported from it
    (a numpy array) must be gone by then: BufferError otherwise.
    """

    __slots__ = ("_memory", "_view", "_window")

    def __init__(self, memory: Memory, window: memoryview) -> None:
        self._memory = memory
        self._window = window
        self._view: memoryview | None = None

    def __enter__(self) -> memoryview:
        if self._view is not None:
            raise MachineError("a view of guest memory is entered twice")
        self._view = self._window
        self._memory._views += 1
        return self._window

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory._views -= 1
        self._window.release()


class Accessor:
    """One side's door to guest physical memory. Addresses are bytes; see the module for the rules.

    Every method raises :class:`~hvkernel.machine.faults.PageFault` when the address is no RAM or the side may
    not have it, and MachineError after the machine was closed.
    """

    __slots__ = ("_flags", "_map", "_memory", "side")

    def __init__(self, memory: Memory, side: Side) -> None:
        self._memory = memory
        self._flags = memory._flags
        self._map = memory._map
        self.side: Side = side

    # -- bytes ----------------------------------------------------------------

    def read(self, gpa: int, n: int) -> bytes:
        """The `n` bytes at `gpa`."""
        end = gpa + n
        try:
            if n > 0 <= gpa and not self._flags[gpa >> 12]:
                last = (end - 1) >> 12
                if last == gpa >> 12 or (last < len(self._flags) and not any(self._flags[gpa >> 12 : last + 1])):
                    return self._map[gpa:end]
        except IndexError:
            pass
        self._memory._check(gpa, n, False, self.side)
        return self._map[gpa:end]

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at `gpa`."""
        n = len(data)
        end = gpa + n
        try:
            if n > 0 <= gpa and not self._flags[gpa >> 12]:
                last = (end - 1) >> 12
                if last == gpa >> 12 or (last < len(self._flags) and not any(self._flags[gpa >> 12 : last + 1])):
                    self._map[gpa:end] = data
                    return
        except IndexError:
            pass
        self._memory._check(gpa, n, True, self.side)
        self._map[gpa:end] = data

    def zero(self, gpa: int, n: int) -> None:
        """Clear the `n` bytes at `gpa`. Large page-aligned areas are given back to the operating system."""
        self._memory._check(gpa, n, True, self.side)
        self._memory._zero(gpa, n)

    def view(self, gpa: int, n: int, *, writable: bool = True) -> View:
        """A context manager whose value is a memoryview of the `n` bytes at `gpa`.

        :param writable: False asks for read permission only and yields a read-only memoryview.
        """
        self._memory._check(gpa, n, writable, self.side)
        window = memoryview(self._map)[gpa : gpa + n]
        return View(self._memory, window if writable else window.toreadonly())

    def vmap(self, hvpfns: Sequence[HvPfn]) -> Vmap:
        """Make the 4 KiB pages `hvpfns`, in that order and repeated if repeated, one range of byte offsets."""
        return Vmap(self._memory, self.side, hvpfns)

    # -- integers -------------------------------------------------------------

    def load8(self, gpa: int) -> int:
        """The byte at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and gpa >= 0:
                return self._map[gpa]
        except IndexError:
            pass
        self._memory._check(gpa, 1, False, self.side)
        return self._map[gpa]

    def load16(self, gpa: int) -> int:
        """The 16-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and gpa & 0xFFF < 0xFFF and gpa >= 0:
                return _get16(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        self._memory._check(gpa, 2, False, self.side)
        return _get16(self._map, gpa)[0]  # type: ignore[no-any-return]

    def load32(self, gpa: int) -> int:
        """The 32-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and gpa & 0xFFF < 0xFFD and gpa >= 0:
                return _get32(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        self._memory._check(gpa, 4, False, self.side)
        return _get32(self._map, gpa)[0]  # type: ignore[no-any-return]

    def load64(self, gpa: int) -> int:
        """The 64-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and gpa & 0xFFF < 0xFF9 and gpa >= 0:
                return _get64(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        self._memory._check(gpa, 8, False, self.side)
        return _get64(self._map, gpa)[0]  # type: ignore[no-any-return]

    def store8(self, gpa: int, v: int) -> None:
        """Put the byte `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            special = self._flags[gpa >> 12] or gpa < 0
        except IndexError:
            special = True
        if special:
            self._memory._check(gpa, 1, True, self.side)
        try:
            self._map[gpa] = v
        except (ValueError, OverflowError, TypeError):
            raise _misfit(8, f"gpa {gpa:#x}", v) from None

    def store16(self, gpa: int, v: int) -> None:
        """Put the 16-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            special = self._flags[gpa >> 12] or gpa & 0xFFF > 0xFFE or gpa < 0
        except IndexError:
            special = True
        if special:
            self._memory._check(gpa, 2, True, self.side)
        try:
            _put16(self._map, gpa, v)
        except struct_error:
            raise _misfit(16, f"gpa {gpa:#x}", v) from None

    def store32(self, gpa: int, v: int) -> None:
        """Put the 32-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            special = self._flags[gpa >> 12] or gpa & 0xFFF > 0xFFC or gpa < 0
        except IndexError:
            special = True
        if special:
            self._memory._check(gpa, 4, True, self.side)
        try:
            _put32(self._map, gpa, v)
        except struct_error:
            raise _misfit(32, f"gpa {gpa:#x}", v) from None

    def store64(self, gpa: int, v: int) -> None:
        """Put the 64-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            special = self._flags[gpa >> 12] or gpa & 0xFFF > 0xFF8 or gpa < 0
        except IndexError:
            special = True
        if special:
            self._memory._check(gpa, 8, True, self.side)
        try:
            _put64(self._map, gpa, v)
        except struct_error:
            raise _misfit(64, f"gpa {gpa:#x}", v) from None

    # -- read-modify-write ----------------------------------------------------

    def _byte_of(self, gpa: int, bit: int) -> int:
        if bit < 0:
            raise ValueError(f"bit: {bit} is negative")
        at = gpa + (bit >> 3)
        self._memory._check(at, 1, True, self.side)
        return at

    def sync_set_bit(self, gpa: int, bit: int) -> None:
        """Set bit `bit`, counted from bit 0 of the byte at `gpa` on (it may lie bytes further)."""
        at = self._byte_of(gpa, bit)
        self._map[at] |= 1 << (bit & 7)
        watches = self._memory._watches
        if watches and self.side == "guest" and at >> 12 in watches:
            watches[at >> 12]()

    def sync_clear_bit(self, gpa: int, bit: int) -> None:
        """Clear bit `bit`, counted as by :meth:`sync_set_bit`."""
        self._map[self._byte_of(gpa, bit)] &= ~(1 << (bit & 7)) & 0xFF

    def sync_test_bit(self, gpa: int, bit: int) -> bool:
        """Whether bit `bit`, counted as by :meth:`sync_set_bit`, is set."""
        if bit < 0:
            raise ValueError(f"bit: {bit} is negative")
        return bool(self.load8(gpa + (bit >> 3)) >> (bit & 7) & 1)

    def sync_test_and_set_bit(self, gpa: int, bit: int) -> bool:
        """Set bit `bit` and return what it was."""
        at = self._byte_of(gpa, bit)
        old = self._map[at]
        self._map[at] = old | 1 << (bit & 7)
        return bool(old >> (bit & 7) & 1)

    def sync_test_and_clear_bit(self, gpa: int, bit: int) -> bool:
        """Clear bit `bit` and return what it was."""
        at = self._byte_of(gpa, bit)
        old = self._map[at]
        self._map[at] = old & ~(1 << (bit & 7))
        return bool(old >> (bit & 7) & 1)

    def xchg32(self, gpa: int, v: int) -> int:
        """Put the 32-bit integer `v` at `gpa` and return what was there."""
        self._memory._check(gpa, 4, True, self.side)
        old: int = _get32(self._map, gpa)[0]
        self.store32(gpa, v)
        return old

    def cmpxchg32(self, gpa: int, old: int, new: int) -> int:
        """If the 32-bit integer at `gpa` is `old`, make it `new`. Returns what was there."""
        self._memory._check(gpa, 4, True, self.side)
        found: int = _get32(self._map, gpa)[0]
        if found == old:
            self.store32(gpa, new)
        return found


class Vmap:
    """4 KiB pages of guest memory as one range of byte offsets: the counterpart of the kernel's vmap().

    A page that stands in the list twice appears twice (the ring buffer maps its data so). Offsets outside the range
    are ValueError: they are a bug of the caller, not a fault of the model. Any use after :meth:`unmap` is a
    MachineError.
    """

    __slots__ = ("_bases", "_door", "_flags", "_map", "_memory", "hvpfns", "side", "size")

    def __init__(self, memory: Memory, side: Side, hvpfns: Sequence[HvPfn]) -> None:
        if not len(hvpfns):
            raise ValueError("hvpfns: empty; a mapping needs at least one page")
        for hvpfn in hvpfns:
            memory._check(hvpfn << HV_HYP_PAGE_SHIFT, 1, False, side)
        self._memory = memory
        self._door: Accessor = memory.guest if side == "guest" else memory.host
        self._flags = memory._flags
        self._map = memory._map
        self._bases: list[int] = [hvpfn << HV_HYP_PAGE_SHIFT for hvpfn in hvpfns]
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
        bases = self._bases
        while n:
            gpa = bases[off >> 12] + (off & 0xFFF)
            size = min(n, 4096 - (off & 0xFFF))
            if pieces and pieces[-1][0] + pieces[-1][1] == gpa:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
            else:
                pieces.append((gpa, size))
            off += size
            n -= size
        for gpa, size in pieces:
            self._memory._check(gpa, size, write, self.side)
        return pieces

    # -- bytes ----------------------------------------------------------------

    def read(self, off: int, n: int) -> bytes:
        """The `n` bytes at offset `off`."""
        if 0 < n <= 4096 - (off & 0xFFF) and off >= 0:
            try:
                gpa = self._bases[off >> 12] + (off & 0xFFF)
                if not self._flags[gpa >> 12]:
                    return self._map[gpa : gpa + n]
            except IndexError:
                pass
        return b"".join([self._map[gpa : gpa + size] for gpa, size in self._runs(off, n, False)])

    def write(self, off: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at offset `off`."""
        n = len(data)
        if 0 < n <= 4096 - (off & 0xFFF) and off >= 0:
            try:
                gpa = self._bases[off >> 12] + (off & 0xFFF)
                if not self._flags[gpa >> 12]:
                    self._map[gpa : gpa + n] = data
                    return
            except IndexError:
                pass
        pieces = self._runs(off, n, True)
        at = 0
        window = memoryview(data)
        for gpa, size in pieces:
            self._map[gpa : gpa + size] = window[at : at + size]
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

    def _split_load(self, off: int, n: int) -> int:
        return int.from_bytes(self.read(off, n), "little")

    def _split_store(self, off: int, n: int, v: int) -> None:
        try:
            data = v.to_bytes(n, "little")
        except (OverflowError, AttributeError):
            raise _misfit(n * 8, f"offset {off:#x}", v) from None
        self.write(off, data)

    def load8(self, off: int) -> int:
        """The byte at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off >= 0:
                return self._map[gpa]
        except IndexError:
            pass
        return self._split_load(off, 1)

    def load16(self, off: int) -> int:
        """The 16-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFFF and off >= 0:
                return _get16(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        return self._split_load(off, 2)

    def load32(self, off: int) -> int:
        """The 32-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFFD and off >= 0:
                return _get32(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        return self._split_load(off, 4)

    def load64(self, off: int) -> int:
        """The 64-bit integer at offset `off`."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFF9 and off >= 0:
                return _get64(self._map, gpa)[0]  # type: ignore[no-any-return]
        except IndexError:
            pass
        return self._split_load(off, 8)

    def store8(self, off: int, v: int) -> None:
        """Put the byte `v` at offset `off`. Errors: ValueError if it does not fit."""
        self._split_store(off, 1, v)

    def store16(self, off: int, v: int) -> None:
        """Put the 16-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFFF and off >= 0:
                _put16(self._map, gpa, v)
                return
        except IndexError:
            pass
        except struct_error:
            raise _misfit(16, f"offset {off:#x}", v) from None
        self._split_store(off, 2, v)

    def store32(self, off: int, v: int) -> None:
        """Put the 32-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFFD and off >= 0:
                _put32(self._map, gpa, v)
                return
        except IndexError:
            pass
        except struct_error:
            raise _misfit(32, f"offset {off:#x}", v) from None
        self._split_store(off, 4, v)

    def store64(self, off: int, v: int) -> None:
        """Put the 64-bit integer `v` at offset `off`. Errors: ValueError if it does not fit."""
        try:
            gpa = self._bases[off >> 12] + (off & 0xFFF)
            if not self._flags[gpa >> 12] and off & 0xFFF < 0xFF9 and off >= 0:
                _put64(self._map, gpa, v)
                return
        except IndexError:
            pass
        except struct_error:
            raise _misfit(64, f"offset {off:#x}", v) from None
        self._split_store(off, 8, v)

    # -- read-modify-write ----------------------------------------------------

    def sync_set_bit(self, off: int, bit: int) -> None:
        """As :meth:`Accessor.sync_set_bit`."""
        self._door.sync_set_bit(self.gpa(off + (bit >> 3)), bit & 7)

    def sync_clear_bit(self, off: int, bit: int) -> None:
        """As :meth:`Accessor.sync_clear_bit`."""
        self._door.sync_clear_bit(self.gpa(off + (bit >> 3)), bit & 7)

    def sync_test_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_bit`."""
        return self._door.sync_test_bit(self.gpa(off + (bit >> 3)), bit & 7)

    def sync_test_and_set_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_and_set_bit`."""
        return self._door.sync_test_and_set_bit(self.gpa(off + (bit >> 3)), bit & 7)

    def sync_test_and_clear_bit(self, off: int, bit: int) -> bool:
        """As :meth:`Accessor.sync_test_and_clear_bit`."""
        return self._door.sync_test_and_clear_bit(self.gpa(off + (bit >> 3)), bit & 7)

    def xchg32(self, off: int, v: int) -> int:
        """As :meth:`Accessor.xchg32`."""
        found = self.load32(off)
        self.store32(off, v)
        return found

    def cmpxchg32(self, off: int, old: int, new: int) -> int:
        """As :meth:`Accessor.cmpxchg32`."""
        found = self.load32(off)
        if found == old:
            self.store32(off, new)
        return found
