"""``vmbus_prep_negotiate_resp`` of ``drivers/hv/channel_mgmt.c``: answering an IC version offer in place."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from hvkernel.abi.ic import IC_VERSION_NEGOTIATION_MAX_VER_COUNT, ICMSG_HDR
from hvkernel.hv.warn import NEGOTIATE_COUNTS, NEGOTIATE_SHORT, Place

__all__ = ["vmbus_prep_negotiate_resp"]

ICMSGSIZE: Final = 18
"""Offset of ``icmsg_hdr.icmsgsize`` in the message, behind the pipe header (include/linux/hyperv.h)."""
NEGOTIATE: Final = struct.Struct("<HHI")
"""icframe_vercnt, icmsg_vercnt, reserved of ``struct icmsg_negotiate``."""
VERSION: Final = struct.Struct("<HH")


def vmbus_prep_negotiate_resp(
    buf: bytearray,
    buflen: int,
    fw_version: Sequence[int],
    srv_version: Sequence[int],
    pr_err_ratelimited: Callable[[Place, str], None],
) -> tuple[bool, int, int]:
    """Choose a framework and a service version and write the answer over the offer.

    :param buf: the driver's receive buffer with the whole pipe message; it is made 44 bytes long if it is shorter,
        because the answer may be longer than the packet was.
    :param buflen: bytes of the packet.
    :param fw_version: ours, ``major << 16 | minor``, best first.
    :return: whether a service version was found, the framework version, the service version (-1, -1: the message was
        too short to be touched).

    Without a match both counts become 0 and the two versions that are written are what the search left: the *number* of
    versions offered where nothing was found (drivers/hv/channel_mgmt.c:vmbus_prep_negotiate_resp).
    """
    if buflen < ICMSG_HDR + 4:
        pr_err_ratelimited(NEGOTIATE_SHORT, "Invalid icmsg negotiate")
        return False, -1, -1
    struct.pack_into("<H", buf, ICMSGSIZE, 0x10)
    icframe_vercnt, icmsg_vercnt = struct.unpack_from("<HH", buf, ICMSG_HDR)
    frame = (icframe_vercnt, 0)
    message = (icmsg_vercnt, 0)
    found = False
    size = ICMSG_HDR + NEGOTIATE.size + VERSION.size * (icframe_vercnt + icmsg_vercnt)
    too_many = max(icframe_vercnt, icmsg_vercnt) > IC_VERSION_NEGOTIATION_MAX_VER_COUNT
    if too_many or size > buflen:
        pr_err_ratelimited(
            NEGOTIATE_COUNTS,
            f"Invalid icmsg negotiate - icframe_major: {icframe_vercnt}, icmsg_major: {icmsg_vercnt}",
        )
    else:
        offered = [
            VERSION.unpack_from(buf, ICMSG_HDR + NEGOTIATE.size + VERSION.size * i)
            for i in range(icframe_vercnt + icmsg_vercnt)
        ]
        chosen = _first_match(fw_version, offered[:icframe_vercnt])
        if chosen is not None:
            frame = chosen
            chosen = _first_match(srv_version, offered[icframe_vercnt:])
            if chosen is not None:
                message = chosen
                found = True
    struct.pack_into("<HH", buf, ICMSG_HDR, int(found), int(found))
    answer = VERSION.pack(*frame) + VERSION.pack(*message)
    at = ICMSG_HDR + NEGOTIATE.size
    if len(buf) < at + len(answer):
        buf.extend(bytes(at + len(answer) - len(buf)))
    buf[at : at + len(answer)] = answer
    return found, frame[0] << 16 | frame[1], message[0] << 16 | message[1]


def _first_match(wanted: Sequence[int], offered: Sequence[tuple[int, ...]]) -> tuple[int, int] | None:
    for version in wanted:
        pair = (version >> 16, version & 0xFFFF)
        if pair in offered:
            return pair
    return None
