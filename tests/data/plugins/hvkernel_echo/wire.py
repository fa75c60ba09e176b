"""What driver and device say to each other."""

from __future__ import annotations

from typing import Final

from hvkernel.abi.guids import HV_HEART_BEAT_GUID
from hvkernel.abi.wire import Wire, u32, wire

CLASS: Final = HV_HEART_BEAT_GUID
"""A class that the profiles offer and no plugin in the tree models (include/linux/hyperv.h)."""


@wire(size=8, source="this file")
class EchoMessage(Wire):
    """A number, and the number that the device makes of it."""

    __kernel__ = "echo_message"

    asked: u32
    """What the driver sends."""
    answered: u32
    """Twice as much, from the device."""
