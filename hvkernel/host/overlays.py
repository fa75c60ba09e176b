"""Overlay pages as the synthetic registers command them.

Every such register has an enable bit and a page number. Enabling shows the hypervisor's page at that GPA, moving takes
its contents along, disabling uncovers what the guest had there; the contents live on in the hypervisor and come back
with the next enable (TLFS, "GPA Overlay Pages"; "SIM Page": the page is cleared when the processor is created or
reset, not when it is disabled). Two overlays on one page are *undefined behaviour* in the TLFS: here the one
established last is seen, nothing is lost, and a finding is recorded.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from hvkernel.machine.addresses import HV_HYP_PAGE_SIZE, HvPfn

if TYPE_CHECKING:
    from hvkernel.host.partition import Host
    from hvkernel.machine.overlay import Overlay

__all__ = ["OverlayPage", "Overlays"]

_BLANK: Final = bytes(HV_HYP_PAGE_SIZE)


class OverlayPage:
    """One page of the hypervisor that a register shows to the guest."""

    __slots__ = ("_contents", "_host", "_key", "_overlay", "_via", "general", "name", "readonly")

    def __init__(self, host: Host, name: str, via: str, key: Hashable, *, readonly: bool, general: bool) -> None:
        self._host = host
        self.name = name
        self.readonly = readonly
        self.general = general
        self._via = via
        self._key = key
        self._contents = _BLANK
        self._overlay: Overlay | None = None

    @property
    def mapped(self) -> bool:
        """Whether the guest can see the page."""
        return self._overlay is not None

    @property
    def hvpfn(self) -> int | None:
        """Where it is seen, as a 4 KiB page number."""
        return None if self._overlay is None else self._overlay.hvpfn

    def sync(self, enabled: bool, hvpfn: int, vp: int) -> bool:
        """Follow a register write.

        :param hvpfn: 4 KiB page number in the register.
        :param vp: VP that wrote, for the ledger.
        :returns: False when the page lies beyond the GPA space; then it is not seen anywhere.
        """
        inside = 0 <= hvpfn < self._host.machine.memory.hvpfn_end
        if not enabled or not inside:
            self._hide()
            return inside or not enabled
        if self._overlay is not None and self._overlay.hvpfn == hvpfn:
            return True
        memory = self._host.machine.memory
        page = HvPfn(hvpfn)
        other = memory.overlays.at(page)
        if other is not None:
            self._host.record("undefined", f"{self.name} placed on {other.name} at GPA {hvpfn << 12:#x}")
        elif not memory.is_ram(page):
            self._host.record("tolerated", f"{self.name} placed at GPA {hvpfn << 12:#x}, where there is no RAM")
        if self._overlay is None:
            self._overlay = memory.overlays.establish(
                page, self._contents, readonly=self.readonly, name=self.name, general=self.general
            )
        else:
            memory.ledger.revoke(self._via, self._key)
            self._overlay.move(page)
        memory.ledger.share(page, 1, self._via, self._key, self._host.machine.clock.now, vp)
        return True

    def _hide(self) -> None:
        if self._overlay is not None:
            self._host.machine.memory.ledger.revoke(self._via, self._key)
            self._contents = self._overlay.revoke()
            self._overlay = None

    def read(self, offset: int, size: int) -> bytes:
        """Read the page's contents, seen or not."""
        if self._overlay is not None:
            return self._overlay.read(offset, size)
        return self._contents[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Change the page's contents, seen or not."""
        if self._overlay is not None:
            self._overlay.write(offset, data)
        else:
            self._contents = self._contents[:offset] + data + self._contents[offset + len(data) :]

    def set_bit(self, bit: int) -> bool:
        """Set a bit of the contents, counted from bit 0 of the first byte; returns what it was."""
        if self._overlay is not None:
            return self._overlay.set_bit(bit)
        old = self._contents[bit >> 3]
        self.write(bit >> 3, bytes((old | 1 << (bit & 7),)))
        return bool(old >> (bit & 7) & 1)

    def clear(self) -> None:
        """Zero the contents (creation and reset of the processor)."""
        self.write(0, _BLANK)


class Overlays:
    """All overlay pages of the partition, by name."""

    __slots__ = ("_host", "pages")

    def __init__(self, host: Host) -> None:
        self._host = host
        self.pages: list[OverlayPage] = []
        """In the order in which the partition made them."""

    def new(self, name: str, via: str, key: Hashable, *, readonly: bool = False, general: bool = False) -> OverlayPage:
        """Make a page that is not seen yet.

        :param via: kind of share in the ledger (``"simp"``), and ``key`` which one of that kind.
        :param general: the guest's writes to a read-only page are #GP; else they fault as any protected page does.
        """
        page = OverlayPage(self._host, name, via, key, readonly=readonly, general=general)
        self.pages.append(page)
        return page
