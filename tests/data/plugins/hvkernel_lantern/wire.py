"""What driver and device say to each other."""

from __future__ import annotations

from typing import Final

from hvkernel.abi.wire import Guid, Wire, u32, wire

CLASS: Final = Guid.parse("1a27e2f0-0000-4000-8000-000000000001")
"""A class of nobody's."""


@wire(size=16, source="this file")
class LanternMessage(Wire):
    """A buffer, and its checksum once the device has read it."""

    __kernel__ = "lantern_message"

    handle: u32
    """GPADL of the buffer."""
    pages: u32
    """Its pages of 4 KiB (HV_HYP_PAGE_SIZE)."""
    checksum: u32
    """CRC-32 of them; zero in the question."""
    first: u32
    """First of these pages in the buffer."""


FLASH: Final = b"flash!!!"
"""What the device sends when its light goes on."""
