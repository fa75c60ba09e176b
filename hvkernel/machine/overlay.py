"""Overlay pages: pages of the hypervisor that hide a page of the guest.

On establishing one, the guest's 4 KiB contents are set aside and the overlay's appear in their place; when it is
revoked or moved, the old contents come back. It is a swap of contents, so every alias of the page sees it. Overlays
may lie on top of each other; the one established last is the visible one, and each uncovers what was visible below
it. What the order should be is *unspecified* by the TLFS; the stack was chosen because it gives back every byte.
Source: TLFS, "GPA Overlay Pages".
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Final

from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE, HvPfn
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.memory import Memory

_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")


class OverlayError(ValueError):
    """An overlay that cannot be: wrong size of contents, or a page outside the address space."""


class Overlay:
    """One established overlay page. Made by :meth:`Overlays.establish`.

    :meth:`read` and :meth:`write` reach the overlay's own contents wherever they are, also when another
    overlay lies on top, and are not subject to `readonly`, which binds the guest.
    """

    __slots__ = ("_owner", "_under", "general", "hvpfn", "name", "readonly")

    def __init__(self, owner: Overlays, hvpfn: HvPfn, readonly: bool, name: str, general: bool) -> None:
        self._owner = owner
        self._under = b""
        self.hvpfn: HvPfn | None = hvpfn
        """The page it lies on, None after :meth:`revoke`."""
        self.readonly = readonly
        self.name = name
        self.general = general
        """A guest's write to a read-only page is a general protection fault instead of a page fault."""

    @property
    def gpa(self) -> int:
        """Address of its first byte. Errors: MachineError if revoked."""
        if self.hvpfn is None:
            raise MachineError(f"overlay {self.name!r} was revoked")
        return self.hvpfn << HV_HYP_PAGE_SHIFT

    def move(self, hvpfn: HvPfn) -> None:
        """Take the contents along to another page; what was below comes back at the old one.

        :raises OverlayError: the page is outside the address space; nothing was changed.
        """
        self._owner._move(self, hvpfn)

    def revoke(self) -> bytes:
        """Remove the overlay; what was below comes back. Returns the overlay's last contents (4096 bytes).

        :raises MachineError: it was revoked before.
        """
        return self._owner._remove(self)

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes of the overlay's contents."""
        return self._owner._read(self, offset, n)

    def write(self, offset: int, data: bytes) -> None:
        """Change the overlay's contents."""
        self._owner._write(self, offset, data)

    def set_bit(self, bit: int) -> bool:
        """Set bit `bit` of the contents, counted from bit 0 of the first byte; returns what it was."""
        return self._owner._set_bit(self, bit)

    def load32(self, offset: int) -> int:
        """The 32-bit integer at `offset` of the contents."""
        return int.from_bytes(self.read(offset, 4), "little")

    def load64(self, offset: int) -> int:
        """The 64-bit integer at `offset` of the contents."""
        return int.from_bytes(self.read(offset, 8), "little")

    def store32(self, offset: int, v: int) -> None:
        """Put a 32-bit integer at `offset` of the contents."""
        self.write(offset, _pack(_U32, self.name, offset, v))

    def store64(self, offset: int, v: int) -> None:
        """Put a 64-bit integer at `offset` of the contents."""
        self.write(offset, _pack(_U64, self.name, offset, v))

    def __repr__(self) -> str:
        place = "revoked" if self.hvpfn is None else f"at {self.gpa:#x}"
        return f"<Overlay {self.name!r} {place}{', read-only' if self.readonly else ''}>"


class Overlays:
    """All overlays of one machine's memory."""

    __slots__ = ("_memory", "_stacks")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._stacks: dict[int, list[Overlay]] = {}

    def establish(self, hvpfn: HvPfn, contents: bytes, *, readonly: bool, name: str, general: bool = False) -> Overlay:
        """Hide page `hvpfn` behind `contents`.

        The page need not be RAM: an overlay on a hole of the memory map gives the guest a page there.

        :param contents: exactly 4096 bytes.
        :param readonly: a guest write raises PageFault.
        :param general: it raises ProtectionFault instead.
        :param name: for messages, "hypercall page", "simp of vp 3".
        :raises OverlayError: contents of another size, or a page outside the address space.
        """
        if len(contents) != HV_HYP_PAGE_SIZE:
            raise OverlayError(f"overlay {name!r}: contents of {len(contents)} bytes, {HV_HYP_PAGE_SIZE} are needed")
        overlay = Overlay(self, hvpfn, readonly, name, general)
        self._put(overlay, hvpfn, bytes(contents))
        return overlay

    def at(self, hvpfn: HvPfn) -> Overlay | None:
        """The visible overlay on page `hvpfn`, or None."""
        stack = self._stacks.get(hvpfn)
        return stack[-1] if stack else None

    def all(self) -> tuple[Overlay, ...]:
        """Every overlay, by page number, lowest of a stack first."""
        return tuple(overlay for hvpfn in sorted(self._stacks) for overlay in self._stacks[hvpfn])

    def _put(self, overlay: Overlay, hvpfn: HvPfn, contents: bytes) -> None:
        memory = self._memory
        if not 0 <= hvpfn < memory.hvpfn_end:
            raise OverlayError(
                f"overlay {overlay.name!r}: page {hvpfn:#x} is outside the address space, which ends before "
                f"page {memory.hvpfn_end:#x}"
            )
        overlay._under = memory._swap_page(hvpfn, contents)
        overlay.hvpfn = hvpfn
        self._stacks.setdefault(hvpfn, []).append(overlay)
        self._reflag(hvpfn)

    def _remove(self, overlay: Overlay) -> bytes:
        hvpfn = overlay.hvpfn
        if hvpfn is None:
            raise MachineError(f"overlay {overlay.name!r} was revoked before")
        stack = self._stacks[hvpfn]
        place = stack.index(overlay)
        if place == len(stack) - 1:
            contents = self._memory._swap_page(hvpfn, overlay._under)
        else:
            above = stack[place + 1]
            contents = above._under
            above._under = overlay._under
        del stack[place]
        if not stack:
            del self._stacks[hvpfn]
        overlay.hvpfn = None
        overlay._under = b""
        self._reflag(hvpfn)
        return contents

    def _move(self, overlay: Overlay, hvpfn: HvPfn) -> None:
        if overlay.hvpfn is None:
            raise MachineError(f"overlay {overlay.name!r} was revoked before")
        if not 0 <= hvpfn < self._memory.hvpfn_end:
            raise OverlayError(
                f"overlay {overlay.name!r}: page {hvpfn:#x} is outside the address space, which ends before "
                f"page {self._memory.hvpfn_end:#x}"
            )
        if hvpfn != overlay.hvpfn:
            self._put(overlay, hvpfn, self._remove(overlay))

    def _reflag(self, hvpfn: HvPfn) -> None:
        top = self.at(hvpfn)
        self._memory._set_overlay(hvpfn, present=top is not None, readonly=top is not None and top.readonly)

    def _place(self, overlay: Overlay, offset: int, n: int) -> Overlay | None:
        """The overlay that holds this one's contents aside, None if they are in memory. Checks the range."""
        hvpfn = overlay.hvpfn
        if hvpfn is None:
            raise MachineError(f"overlay {overlay.name!r} was revoked")
        if offset < 0 or n < 0 or offset + n > HV_HYP_PAGE_SIZE:
            raise ValueError(f"overlay {overlay.name!r}: offset {offset:#x}, {n} bytes: outside its 4096 bytes")
        stack = self._stacks[hvpfn]
        return None if stack[-1] is overlay else stack[stack.index(overlay) + 1]

    def _read(self, overlay: Overlay, offset: int, n: int) -> bytes:
        hvpfn = overlay.hvpfn
        if hvpfn is not None and offset >= 0 <= n <= HV_HYP_PAGE_SIZE - offset and self._stacks[hvpfn][-1] is overlay:
            start = (hvpfn << HV_HYP_PAGE_SHIFT) + offset
            return self._memory._map[start : start + n]
        above = self._place(overlay, offset, n)
        if above is not None:
            return above._under[offset : offset + n]
        start = overlay.gpa + offset
        return self._memory._map[start : start + n]

    def _set_bit(self, overlay: Overlay, bit: int) -> bool:
        offset, mask = bit >> 3, 1 << (bit & 7)
        hvpfn = overlay.hvpfn
        if hvpfn is not None and 0 <= offset < HV_HYP_PAGE_SIZE and self._stacks[hvpfn][-1] is overlay:
            at = (hvpfn << HV_HYP_PAGE_SHIFT) + offset
            old = self._memory._map[at]
            self._memory._map[at] = old | mask
        else:
            old = self._read(overlay, offset, 1)[0]
            self._write(overlay, offset, bytes((old | mask,)))
        return bool(old & mask)

    def _write(self, overlay: Overlay, offset: int, data: bytes) -> None:
        n = len(data)
        hvpfn = overlay.hvpfn
        if hvpfn is not None and 0 <= offset <= HV_HYP_PAGE_SIZE - n and self._stacks[hvpfn][-1] is overlay:
            start = (hvpfn << HV_HYP_PAGE_SHIFT) + offset
            self._memory._map[start : start + n] = data
            return
        above = self._place(overlay, offset, n)
        if above is not None:
            above._under = above._under[:offset] + bytes(data) + above._under[offset + n :]
        else:
            start = overlay.gpa + offset
            self._memory._map[start : start + n] = data


def _pack(codec: Struct, name: str, offset: int, v: int) -> bytes:
    try:
        return codec.pack(v)
    except struct_error:
        what = f"an unsigned integer of {codec.size * 8} bits"
        raise ValueError(f"overlay {name!r}, offset {offset:#x}: {v!r} is not {what}") from None
