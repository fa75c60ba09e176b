"""GPADLs: guest memory that the guest describes in a header and body messages and the host then may reach.

The guest says the length of its list in a 16-bit field (range_buflen), which wraps at 8191 pages: the host believes the
field, as OpenVMM does (channels.rs: Gpadl::append), so that such a list is refused. Its bodies are on their way already
(drivers/hv/channel.c: __vmbus_establish_gpadl posts them all before it waits); they are dropped without a further word.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.host import STATUS_SUCCESS, STATUS_UNSUCCESSFUL
from hvkernel.host.vmbus.buffers import GpaBuffer
from hvkernel.host.vmbus.messages import header
from hvkernel.host.vmbus.ranges import BadRange, Range, parse_ranges
from hvkernel.host.vmbus.steps import next_row
from hvkernel.host.vmbus.tables import GPADL, GpadlEvent, GpadlState

if TYPE_CHECKING:
    from hvkernel.host.vmbus.bus import Bus

__all__ = ["Gpadl", "GpadlTable"]

_HEADER_BYTES: Final = abi.VmbusChannelGpadlHeader.SIZE
_BODY_BYTES: Final = abi.VmbusChannelGpadlBody.SIZE
_MOST_LIST: Final = 0xFFFF
"""Bytes of ranges that range_buflen, a u16, can announce."""
_RANGE: Final = struct.Struct("<II")
_MOST_REFUSED: Final = 256
"""Handles of refused lists that are remembered."""


class Gpadl:
    """One GPADL. Its steps are :data:`hvkernel.host.vmbus.tables.GPADL`'s."""

    __slots__ = (
        "_bus",
        "_compact",
        "byte_count",
        "count",
        "data",
        "handle",
        "pages",
        "relid",
        "shared",
        "state",
        "used",
        "vp",
        "wanted",
    )

    def __init__(self, bus: Bus, relid: int, handle: int, wanted: int, count: int, vp: int) -> None:
        self._bus = bus
        self.relid = relid
        self.handle = handle
        self.wanted = wanted
        """Bytes of ranges that range_buflen announces, whole u64s."""
        self.count = count
        self.vp = vp
        self.data = bytearray()
        self._compact: tuple[tuple[int, int, array[int]], ...] = ()
        self.pages = 0
        self.byte_count = 0
        self.state = GpadlState.ASSEMBLING
        self.shared = False
        """Whether the host uses the memory."""
        self.used = True
        """Whether it may: not once the device is gone."""

    def __str__(self) -> str:
        return f"GPADL {self.handle:#x} of relid {self.relid}"

    def step(self, event: GpadlEvent) -> None:
        """Take one step.

        :raises RemoteProtocolError: the table does not have it; nothing has changed.
        """
        self.state, effects = next_row(GPADL, str(self), self.state, event)
        for effect in effects:
            getattr(self, f"_do_{effect}")()

    def take(self, data: bytes) -> bool:
        """Take what a message brings, no more than is wanted; true when that was all.

        Messages may be longer than their content: firmware always posts the full 240 bytes (channels.rs: append).
        """
        self.data += data[: min(len(data) & ~7, self.wanted - len(self.data))]
        return len(self.data) == self.wanted

    def decode(self) -> None:
        """Read the ranges.

        :raises BadRange: they do not describe memory of this guest.
        """
        ranges, _ = parse_ranges(bytes(self.data), self.count)
        for byte_count, _, pfns in ranges:
            stranger = self._bus.first_not_ram(pfns)
            if stranger is not None:
                raise BadRange(f"page {stranger:#x} is not memory of this guest")
            self.byte_count += byte_count
            self.pages += len(pfns)
        # A ring's GPADL lives as long as its channel: 8 bytes a page, not a Python number each, and no second copy.
        self._compact = tuple((byte_count, offset, array("Q", pfns)) for byte_count, offset, pfns in ranges)
        self.data = bytearray()

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The ranges; none before :meth:`decode` took them."""
        return tuple((byte_count, offset, tuple(pfns)) for byte_count, offset, pfns in self._compact)

    @property
    def pfns(self) -> tuple[int, ...]:
        """The 4 KiB page numbers of all ranges, in order."""
        return tuple(pfn for _, _, pfns in self._compact for pfn in pfns)

    def buffer(self) -> GpaBuffer:
        """Return the memory."""
        return GpaBuffer(self._bus.memory, self.ranges)

    def _do_share(self) -> None:
        if self.used:
            self._bus.share(f"gpadl {self.handle:#x}", self.relid, self.pfns, self.vp)
            self.shared = True

    def _do_unshare(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Stop using the memory; the GPADL stays what it is."""
        if self.shared:
            self._bus.unshare(f"gpadl {self.handle:#x}", self.relid)
        self.shared = self.used = False

    def _do_created(self) -> None:
        self._bus.post(
            abi.VmbusChannelGpadlCreated(
                header(Type.CHANNELMSG_GPADL_CREATED), self.relid, self.handle, STATUS_SUCCESS
            ).pack()
        )

    def _do_refused(self) -> None:
        self._bus.post(refusal(self.relid, self.handle))

    def _do_torndown(self) -> None:
        self._bus.post(abi.VmbusChannelGpadlTorndown(header(Type.CHANNELMSG_GPADL_TORNDOWN), self.handle).pack())

    def _do_note_early_teardown(self) -> None:
        self._bus.record("tolerated", f"{self} is torn down while its ring is open; TORNDOWN waits for CLOSECHANNEL")


def refusal(relid: int, handle: int) -> bytes:
    """Return the GPADL_CREATED that refuses a GPADL."""
    return abi.VmbusChannelGpadlCreated(
        header(Type.CHANNELMSG_GPADL_CREATED), relid, handle, STATUS_UNSUCCESSFUL
    ).pack()


def too_long(announced: int, data: bytes) -> str:
    """Say what is wrong with a first range that takes a longer list than range_buflen can announce, else ``""``.

    :param announced: range_buflen.
    :param data: the beginning of the list.
    """
    if len(data) < _RANGE.size:
        return ""
    byte_count, byte_offset = _RANGE.unpack_from(data)
    pages = byte_offset + byte_count + 0xFFF >> 12
    needs = _RANGE.size + 8 * pages
    if needs <= _MOST_LIST:
        return ""
    return (
        f"{pages} pages take a list of {needs} bytes, and range_buflen has 16 bits: it says {announced}, "
        f"{_MOST_LIST} is the most ({(_MOST_LIST - _RANGE.size) // 8} pages in one range)"
    )


class GpadlTable:
    """All GPADLs of a connection."""

    __slots__ = ("_assembling", "_bus", "_limit", "_refused", "_table", "_total")

    def __init__(self, bus: Bus, limit: int) -> None:
        """:param limit: bytes that all GPADLs of the guest together may hold (Documentation/virt/hyperv/vmbus.rst)."""
        self._bus = bus
        self._limit = limit
        self._total = 0
        self._table: dict[tuple[int, int], Gpadl] = {}
        self._assembling: dict[int, Gpadl] = {}
        self._refused: dict[int, bool] = {}
        """Handles whose header was refused; their bodies may still come."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def total(self) -> int:
        """Bytes that all complete GPADLs hold."""
        return self._total

    def get(self, relid: int, handle: int) -> Gpadl | None:
        """Return a GPADL of a channel, complete or not."""
        return self._table.get((relid, handle))

    def header(self, message: abi.VmbusChannelGpadlHeader, payload: bytes, vp: int, *, used: bool = True) -> None:
        """Start a GPADL from its GPADL_HEADER; the channel is known to exist.

        :param used: False for a channel that is already rescinded: its GPADL is accepted, since the message crossed
            the rescind, but nobody touches the memory (channels.rs: gpadl_completed).
        """
        relid, handle = message.child_relid, message.gpadl
        self._refused.pop(handle, None)
        why = "" if message.rangecount else "rangecount is 0"
        if (relid, handle) in self._table:
            why = "the channel has a GPADL of that handle"
        elif handle in self._assembling:
            why = "a GPADL of that handle is still waiting for its GPADL_BODY"
        if why:
            self._bus.record("refused", f"GPADL {handle:#x} of relid {relid}: {why}")
            self.refuse(message, payload)
            return
        gpadl = Gpadl(self._bus, relid, handle, message.range_buflen & ~7, message.rangecount, vp)
        gpadl.used = used
        self._table[relid, handle] = gpadl
        why = too_long(message.range_buflen, payload[_HEADER_BYTES:])
        if why:
            self._drop(gpadl, why)
            self._expect_bodies(handle)
        elif gpadl.take(payload[_HEADER_BYTES:]):
            self._complete(gpadl)
        else:
            self._assembling[handle] = gpadl

    def body(self, message: abi.VmbusChannelGpadlBody, payload: bytes) -> None:
        """Add the page numbers of a GPADL_BODY."""
        gpadl = self._assembling.get(message.gpadl)
        if gpadl is None:
            if message.gpadl in self._refused:
                return
            # The message names no channel, so nobody can be told (channels.rs: handle_gpadl_body).
            self._bus.record("ignored", f"GPADL_BODY for {message.gpadl:#x}, which waits for none")
            return
        if len(payload) - _BODY_BYTES < 8:
            del self._assembling[message.gpadl]
            self._drop(gpadl, f"GPADL_BODY of {len(payload)} bytes holds no page number")
            return
        if gpadl.take(payload[_BODY_BYTES:]):
            del self._assembling[message.gpadl]
            self._complete(gpadl)
        else:
            gpadl.step(GpadlEvent.BODY)

    def _complete(self, gpadl: Gpadl) -> None:
        try:
            gpadl.decode()
        except BadRange as error:
            self._drop(gpadl, str(error))
            # Several ranges may have wrapped the field together; then more is on its way.
            self._expect_bodies(gpadl.handle)
            return
        if self._total + gpadl.byte_count > self._limit:
            self._drop(
                gpadl,
                f"{gpadl.byte_count:#x} bytes more than the {self._total:#x} already in GPADLs "
                f"exceed this host's limit of {self._limit:#x}",
            )
            return
        self._total += gpadl.byte_count
        gpadl.step(GpadlEvent.COMPLETE)

    def _drop(self, gpadl: Gpadl, why: str) -> None:
        self._bus.record("refused", f"{gpadl}: {why}")
        del self._table[gpadl.relid, gpadl.handle]
        gpadl.step(GpadlEvent.REFUSE)

    def refuse(self, message: abi.VmbusChannelGpadlHeader, payload: bytes) -> None:
        """Answer a header that makes no GPADL. The bodies that it announces are no mistake of their own."""
        self._bus.post(refusal(message.child_relid, message.gpadl))
        if len(payload) - _HEADER_BYTES < message.range_buflen and message.gpadl not in self._assembling:
            self._expect_bodies(message.gpadl)

    def _expect_bodies(self, handle: int) -> None:
        self._refused[handle] = True
        while len(self._refused) > _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    def teardown(self, relid: int, handle: int) -> None:
        """Handle GPADL_TEARDOWN.

        :raises RemoteProtocolError: the GPADL is in no state to be torn down.
        """
        gpadl = self._table.get((relid, handle))
        if gpadl is None:
            self._bus.record("ignored", f"GPADL_TEARDOWN for {handle:#x}, which relid {relid} does not have")
            return
        gpadl.step(GpadlEvent.TEARDOWN)
        self._forget_if_gone(gpadl)

    def opened(self, gpadl: Gpadl) -> None:
        """Note that a channel opened on this GPADL."""
        gpadl.step(GpadlEvent.OPEN)

    def closed(self, gpadl: Gpadl) -> None:
        """Note that its channel closed; a teardown that waited is answered now."""
        gpadl.step(GpadlEvent.CLOSE)
        self._forget_if_gone(gpadl)

    def drop(self, relid: int) -> None:
        """Drop all GPADLs of a channel, without a word to the guest."""
        for key in [key for key in self._table if key[0] == relid]:
            gpadl = self._table[key]
            if gpadl.state is GpadlState.ASSEMBLING:
                del self._assembling[gpadl.handle]
            gpadl.step(GpadlEvent.DROP)
            self._forget_if_gone(gpadl)

    def let_go(self, relid: int) -> None:
        """Stop using the memory of a channel that is being rescinded; its GPADLs stay known until they are torn down.

        A guest may take the memory back as soon as it sees the rescind: Linux tears no GPADL of a rescinded channel
        down (drivers/hv/channel.c vmbus_teardown_gpadl).
        """
        for key, gpadl in self._table.items():
            if key[0] == relid:
                gpadl.let_go()

    def forget_refused(self) -> None:
        """The connection has ended, and with it what was still on its way."""
        self._refused.clear()

    def _forget_if_gone(self, gpadl: Gpadl) -> None:
        if gpadl.state is GpadlState.GONE:
            self._total -= gpadl.byte_count
            del self._table[gpadl.relid, gpadl.handle]
