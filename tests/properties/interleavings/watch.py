"""What is seen of a run from outside: the channel messages, counted by relid, and a digest of everything."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.trace.sink import NullTracer

OFFER = int(Type.CHANNELMSG_OFFERCHANNEL)
RESCIND = int(Type.CHANNELMSG_RESCIND_CHANNELOFFER)
RELEASED = int(Type.CHANNELMSG_RELID_RELEASED)
MODIFY = int(Type.CHANNELMSG_MODIFYCHANNEL)
MODIFIED = int(Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE)
UNLOAD = int(Type.CHANNELMSG_UNLOAD)
RELID_OF_OFFER = 0xB8
"""Offset of child_relid in struct vmbus_channel_offer_channel."""


class Watch(NullTracer):
    """A tracer that keeps the relids' account. ``wrong`` gets what breaks the rules."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.offered: dict[int, str] = {}
        """Relids that the guest has been told of and has not released: "offered" or "rescinded"."""
        self.modifying: Counter[int] = Counter()
        """By relid: MODIFYCHANNELs that have no answer yet."""
        self.unloaded = False
        self._digest = sha256()

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self._digest.update(f"{t} {vp} {to_host} ".encode() + data)
        kind = int.from_bytes(data[:4], "little")
        self.unloaded |= kind == UNLOAD
        if kind == OFFER and not to_host:
            relid = int.from_bytes(data[RELID_OF_OFFER : RELID_OF_OFFER + 4], "little")
            if relid in self.offered:
                self.wrong.append(f"relid {relid} is offered while it is {self.offered[relid]}")
            self.offered[relid] = "offered"
            return
        relid = int.from_bytes(data[8:12], "little")
        if kind in (MODIFY, MODIFIED):
            self.modifying[relid] += 1 if to_host else -1
        state = self.offered.get(relid)
        if kind == RESCIND and not to_host:
            if state != "offered":
                self.wrong.append(f"relid {relid} is rescinded while it is {state}")
            self.offered[relid] = "rescinded"
        elif kind == RELEASED and to_host:
            if state != "rescinded":
                self.wrong.append(f"relid {relid} is released while it is {state}")
            self.offered.pop(relid, None)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self._digest.update(f"{t} {vp} {relid} {to_host} ".encode() + data)

    def digest(self) -> str:
        """Return a digest of all messages and packets with their times."""
        return self._digest.hexdigest()
