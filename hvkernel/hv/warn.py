"""WARN() of ``drivers/hv``: what a warning looks like in the log, where 6.1.192 has one, and messages with a limit.

Printed are the marker, the text of a WARN_ONCE, the place and the end marker (lib/bug.c:report_bug,
kernel/panic.c:__warn). Between them a kernel prints its modules, registers and a backtrace, behind the function's name
an offset and a length: those are not modelled. The model has no process ids: ``PID: 0`` is *unspecified*.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["LIMITED", "PLACES", "Place", "Ratelimit", "warning"]


class Place(NamedTuple):
    """A line of the kernel that warns."""

    file: str
    line: int
    """In 6.1.192."""
    function: str


CUT_HERE: Final = "------------[ cut here ]------------"
END_MARKER: Final = "---[ end trace 0000000000000000 ]---"

RELID2CHANNEL: Final = Place("drivers/hv/connection.c", 383, "relid2channel")
MAP_RELID: Final = Place("drivers/hv/channel_mgmt.c", 386, "vmbus_channel_map_relid")
UNMAP_RELID: Final = Place("drivers/hv/channel_mgmt.c", 420, "vmbus_channel_unmap_relid")
REMOVAL_NOT_RESCINDED: Final = Place("drivers/hv/channel_mgmt.c", 444, "hv_process_channel_removal")
REMOVAL_INVALID_RELID: Final = Place("drivers/hv/channel_mgmt.c", 450, "hv_process_channel_removal")
OFFERED_TWICE: Final = Place("drivers/hv/channel_mgmt.c", 661, "vmbus_process_offer")
OFFERED_IN_USE: Final = Place("drivers/hv/channel_mgmt.c", 1088, "vmbus_onoffer")
NO_HVSOCK: Final = Place("drivers/hv/channel_mgmt.c", 1292, "vmbus_hvsock_device_unregister")
UNKNOWN_MSGTYPE: Final = Place("drivers/hv/vmbus_drv.c", 1064, "vmbus_on_msg_dpc")
PAYLOAD_SIZE: Final = Place("drivers/hv/vmbus_drv.c", 1070, "vmbus_on_msg_dpc")
TOO_SHORT: Final = Place("drivers/hv/vmbus_drv.c", 1080, "vmbus_on_msg_dpc")
FORCED_NO_HVSOCK: Final = Place("drivers/hv/vmbus_drv.c", 1173, "vmbus_force_channel_rescinded")
HVSOCK_NOT_RESCINDED: Final = Place("drivers/hv/vmbus_drv.c", 2409, "vmbus_bus_suspend")
SUB_CHANNEL_LEFT: Final = Place("drivers/hv/vmbus_drv.c", 2416, "vmbus_bus_suspend")
NOTHING_TO_RESUME: Final = Place("drivers/hv/vmbus_drv.c", 2464, "vmbus_bus_resume")

PLACES: Final = (
    RELID2CHANNEL,
    MAP_RELID,
    UNMAP_RELID,
    REMOVAL_NOT_RESCINDED,
    REMOVAL_INVALID_RELID,
    OFFERED_TWICE,
    OFFERED_IN_USE,
    NO_HVSOCK,
    UNKNOWN_MSGTYPE,
    PAYLOAD_SIZE,
    TOO_SHORT,
    FORCED_NO_HVSOCK,
    HVSOCK_NOT_RESCINDED,
    SUB_CHANNEL_LEFT,
    NOTHING_TO_RESUME,
)
"""Every WARN and BUG that the modelled half of drivers/hv has."""


NEGOTIATE_SHORT: Final = Place("drivers/hv/channel_mgmt.c", 249, "vmbus_prep_negotiate_resp")
NEGOTIATE_COUNTS: Final = Place("drivers/hv/channel_mgmt.c", 266, "vmbus_prep_negotiate_resp")
INVALID_OFFER: Final = Place("drivers/hv/channel_mgmt.c", 1046, "vmbus_onoffer")

LIMITED: Final = (NEGOTIATE_SHORT, NEGOTIATE_COUNTS, INVALID_OFFER)
"""Every pr_err_ratelimited of the modelled half of drivers/hv."""

INTERVAL_SECONDS: Final = 5
BURST: Final = 10
"""include/linux/ratelimit_types.h: DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST."""


class Ratelimit:
    """``struct ratelimit_state`` of one message: ten in five seconds (lib/ratelimit.c:___ratelimit)."""

    __slots__ = ("begin", "missed", "printed")

    def __init__(self) -> None:
        self.begin = self.printed = self.missed = 0

    def allow(self, jiffies: int, hz: int) -> tuple[bool, int]:
        """Return whether to print now, and how many were dropped in an interval that is over."""
        told = 0
        if not self.begin:
            self.begin = jiffies
        if self.begin + INTERVAL_SECONDS * hz < jiffies:
            told, self.missed = self.missed, 0
            self.begin, self.printed = jiffies, 0
        if self.printed < BURST:
            self.printed += 1
            return True, told
        self.missed += 1
        return False, told


def warning(place: Place, cpu: int, text: str) -> str:
    """Return the lines of a warning.

    :param text: of a WARN_ONCE; empty for a WARN_ON, which has none.
    """
    said = f"{text}\n" if text else ""
    where = f"WARNING: CPU: {cpu} PID: 0 at {place.file}:{place.line} {place.function}"
    return f"{CUT_HERE}\n{said}{where}\n{END_MARKER}"
