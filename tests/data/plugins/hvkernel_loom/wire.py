"""What driver and device say to each other.

Every packet begins with a :class:`LoomMessage`; ``length`` bytes of data may follow it. The driver asks, the device
answers with a completion that carries the same message, filled in.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Final

from hvkernel.abi.guids import HV_ND_GUID
from hvkernel.abi.meaning import Form, Meaning, Payload, names
from hvkernel.abi.wire import Wire, u32, u64, wire

CLASS: Final = HV_ND_GUID
"""NetworkDirect: a performance device (vmbus_devs[] of drivers/hv/channel_mgmt.c) without a driver in the kernel."""

STATUS_OK: Final = 0
STATUS_BAD: Final = 1
"""The device does not know the operation, or it does not fit what went before."""

PAGESET: Final = 0x10
"""Page set of the shared buffer in transfer-page packets."""


class LoomOp(IntEnum):
    """What is asked.

    Source: this file
    """

    HELLO = 1
    """The device says in ``count`` how many sub-channels it has."""
    SUBCHANNELS = 2
    """Offer ``count`` sub-channels."""
    SUM = 3
    """Answer the CRC-32 of the data, and in ``count`` how many NOTEs came on this channel before."""
    NOTE = 4
    """Count this; no completion."""
    GATHER = 5
    """GPA-direct: answer the CRC-32 of the guest's buffer."""
    SCATTER = 6
    """GPA-direct: fill the guest's buffer with a pattern made of ``cookie``, and answer its CRC-32."""
    SHARE = 7
    """From now on the GPADL ``handle`` is the shared buffer."""
    UNSHARE = 8
    """Forget the shared buffer."""
    TICK = 9
    """Send ``count`` in-band packets, each of which the driver completes; then complete this one."""
    DELIVER = 10
    """The same with ``count`` transfer-page packets, each for ``length`` bytes in the shared buffer."""


@wire(size=32, source="this file")
class LoomMessage(Wire):
    """A request, its answer, or an event of the device."""

    __kernel__ = "loom_message"

    op: u32
    """A `LoomOp`."""
    status: u32
    """0, or why not."""
    count: u32
    length: u32
    """Bytes of data: behind this message, or in the buffer that the packet describes."""
    checksum: u32
    """CRC-32 of the data."""
    handle: u32
    """A GPADL."""
    cookie: u64
    """Chosen by who sends the request, and repeated."""


MEANINGS: Final[MappingProxyType[str, Meaning]] = MappingProxyType(
    {"loom_message.op": names(LoomOp), "loom_message.count": Form.DECIMAL, "loom_message.length": Form.DECIMAL}
)
PAYLOADS: Final = (Payload("loom", (CLASS,), LoomMessage, selector="op"),)


def pattern(cookie: int, length: int) -> bytes:
    """Return ``length`` bytes that differ from cookie to cookie."""
    word = (cookie * 0x9E37_79B9_7F4A_7C15 + 1 & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
    return (word * (length // 8 + 1))[:length]
