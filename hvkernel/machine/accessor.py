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
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from hvkernel.machine.addresses import HvPfn
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory
    from hvkernel.machine.vmap import Vmap

Side = Literal["guest", "host"]
"""Which of the two doors."""


def misfit(bits: int, where: str, value: object) -> ValueError:
    return ValueError(f"store{bits} at {where}: {value!r} is not an integer of {bits} bits without sign")


def to_bytes(v: int, n: int, what: str, where: int) -> bytes:
    try:
        return v.to_bytes(n, "little")
    except (OverflowError, AttributeError):
        raise misfit(n * 8, f"{what} {where:#x}", v) from None


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

    __slots__ = ("_flags", "_m16", "_m32", "_m64", "_map", "_memory", "side")

    def __init__(self, memory: Memory, side: Side) -> None:
        self._memory = memory
        self._flags = memory._flags
        self._map = memory._map
        self._m16, self._m32, self._m64 = memory._words
        self.side: Side = side

    # -- bytes ----------------------------------------------------------------

    def read(self, gpa: int, n: int) -> bytes:
        """The `n` bytes at `gpa`."""
        flags = self._flags
        first = gpa >> 12
        last = (gpa + n - 1) >> 12
        try:
            if n > 0 <= gpa and not flags[first]:
                if first == last:
                    return self._map[gpa : gpa + n]
                if not flags[last] and flags.count(0, first, last + 1) == last + 1 - first:
                    return self._map[gpa : gpa + n]
        except IndexError:
            pass
        self._memory._check(gpa, n, False, self.side)
        return self._map[gpa : gpa + n]

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` (of bytes) at `gpa`."""
        flags = self._flags
        n = len(data)
        first = gpa >> 12
        last = (gpa + n - 1) >> 12
        try:
            if n > 0 <= gpa and not flags[first]:
                if first == last:
                    self._map[gpa : gpa + n] = data
                    return
                if not flags[last] and flags.count(0, first, last + 1) == last + 1 - first:
                    self._map[gpa : gpa + n] = data
                    return
        except IndexError:
            pass
        self._memory._check(gpa, n, True, self.side)
        self._map[gpa : gpa + n] = data

    def zero(self, gpa: int, n: int) -> None:
        """Clear the `n` bytes at `gpa`. Large page-aligned areas are given back to the operating system."""
        self._memory._check(gpa, n, True, self.side)
        self._memory._zero(gpa, n)

    def view(self, gpa: int, n: int, *, writable: bool = True) -> View:
        """A context manager whose value is a memoryview of the `n` bytes at `gpa`.

        :param writable: False asks for read permission only and yields a read-only memoryview.
        """
        self._memory._check(gpa, n, writable, self.side)
        window = self._memory._window[gpa : gpa + n]
        return View(self._memory, window if writable else window.toreadonly())

    def vmap(self, hvpfns: Sequence[HvPfn]) -> Vmap:
        """Make the 4 KiB pages `hvpfns`, in that order and repeated if repeated, one range of byte offsets."""
        return self._memory._new_vmap(self.side, hvpfns)

    # -- integers -------------------------------------------------------------

    def load8(self, gpa: int) -> int:
        """The 8-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and gpa >= 0:
                return self._map[gpa]
        except IndexError:
            pass
        return int.from_bytes(self.read(gpa, 1), "little")

    def load16(self, gpa: int) -> int:
        """The 16-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 1 and gpa >= 0:
                return self._m16[gpa >> 1]
        except IndexError:
            pass
        return int.from_bytes(self.read(gpa, 2), "little")

    def load32(self, gpa: int) -> int:
        """The 32-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 3 and gpa >= 0:
                return self._m32[gpa >> 2]
        except IndexError:
            pass
        return int.from_bytes(self.read(gpa, 4), "little")

    def load64(self, gpa: int) -> int:
        """The 64-bit integer at `gpa`."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 7 and gpa >= 0:
                return self._m64[gpa >> 3]
        except IndexError:
            pass
        return int.from_bytes(self.read(gpa, 8), "little")

    def store8(self, gpa: int, v: int) -> None:
        """Put the 8-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            if not self._flags[gpa >> 12] and gpa >= 0:
                self._map[gpa] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError, OverflowError):
            raise misfit(8, f"gpa {gpa:#x}", v) from None
        self.write(gpa, to_bytes(v, 1, "gpa", gpa))

    def store16(self, gpa: int, v: int) -> None:
        """Put the 16-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 1 and gpa >= 0:
                self._m16[gpa >> 1] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(16, f"gpa {gpa:#x}", v) from None
        self.write(gpa, to_bytes(v, 2, "gpa", gpa))

    def store32(self, gpa: int, v: int) -> None:
        """Put the 32-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 3 and gpa >= 0:
                self._m32[gpa >> 2] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(32, f"gpa {gpa:#x}", v) from None
        self.write(gpa, to_bytes(v, 4, "gpa", gpa))

    def store64(self, gpa: int, v: int) -> None:
        """Put the 64-bit integer `v` at `gpa`. Errors: ValueError if it does not fit."""
        try:
            if not self._flags[gpa >> 12] and not gpa & 7 and gpa >= 0:
                self._m64[gpa >> 3] = v
                return
        except IndexError:
            pass
        except (ValueError, TypeError):
            raise misfit(64, f"gpa {gpa:#x}", v) from None
        self.write(gpa, to_bytes(v, 8, "gpa", gpa))

    # -- read-modify-write ----------------------------------------------------

    def _byte_of(self, gpa: int, bit: int) -> int:
        if bit < 0:
            raise ValueError(f"bit: {bit} is negative")
        at = gpa + (bit >> 3)
        try:
            special = self._flags[at >> 12] or at < 0
        except IndexError:
            special = True
        if special:
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
        old = self.sync_test_bit(gpa, bit)
        self.sync_set_bit(gpa, bit)
        return old

    def sync_test_and_clear_bit(self, gpa: int, bit: int) -> bool:
        """Clear bit `bit` and return what it was."""
        at = self._byte_of(gpa, bit)
        old = self._map[at]
        self._map[at] = old & ~(1 << (bit & 7))
        return bool(old >> (bit & 7) & 1)

    def xchg32(self, gpa: int, v: int) -> int:
        """Put the 32-bit integer `v` at `gpa` and return what was there."""
        old = self.load32(gpa)
        self.store32(gpa, v)
        return old

    def cmpxchg32(self, gpa: int, old: int, new: int) -> int:
        """If the 32-bit integer at `gpa` is `old`, make it `new`. Returns what was there. Needs write permission."""
        found = self.load32(gpa)
        self.store32(gpa, new if found == old else found)
        return found
