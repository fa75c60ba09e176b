"""Channel messages and ring packets as a pcapng file, for Wireshark, tshark and ``hvkernel decode``.

One packet of the file is one channel message or one ring packet. Each begins with a :class:`PcapHeader` of ours, which
says what follows and of which channel; link type DLT_USER0. Interface 0 is the channel messages, every channel gets an
interface of its own with its first packet. Times are the virtual time since the machine was made, in units of 100 ns.

Format: draft-ietf-opsawg-pcapng, "Section Header Block", "Interface Description Block", "Enhanced Packet Block".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from hvkernel import __version__
from hvkernel.abi.guids import guid_name
from hvkernel.abi.vmbus import (
    VmbusChannelInitiateContact,
    VmbusChannelOfferChannel,
    VmbusChannelVersionResponse,
)
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Guid, Wire, u8, u32, wire
from hvkernel.trace.sink import NullTracer, Output, Sink, TraceInfo

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = [
    "HEADER_VERSION",
    "KIND_MESSAGE",
    "KIND_PACKET",
    "LINKTYPE",
    "MAX_CAPTURED",
    "PcapHeader",
    "PcapngSink",
    "PcapngWriter",
]

LINKTYPE: Final = 147
"""DLT_USER0: for private use, so Wireshark has to be told what it means; the dissector does that."""
HEADER_VERSION: Final = 1
"""``version`` of :class:`PcapHeader`. A reader refuses any other."""
KIND_MESSAGE: Final = 0
"""``kind``: a channel message follows."""
KIND_PACKET: Final = 1
"""``kind``: a ring packet follows, descriptor first, without its trailer."""
MAX_CAPTURED: Final = 262_144
"""Bytes of one packet in the file at most: Wireshark takes no more (its WTAP_MAX_PACKET_SIZE_STANDARD). A ring packet
may have 524,280; then the file says how long it was."""

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_TSRESOL: Final = b"\x07"  # 10 ** -7 seconds
_INBOUND: Final = struct.pack("<I", 1)
_OUTBOUND: Final = struct.pack("<I", 2)
_U32: Final = struct.Struct("<I")


@wire(size=48, source="unspecified: this project's own, in front of every packet of its pcapng files")
class PcapHeader(Wire):
    """What the bytes that follow are, and which channel they belong to."""

    __kernel__ = "hvkernel_pcap_header"

    version: u8
    """1."""
    kind: u8
    """0 a channel message, 1 a ring packet."""
    to_host: u8
    """1 from the guest to the host, 0 the other way."""
    size: u8
    """Bytes of this header: 48. What follows begins there."""
    vp: u32
    """VP index that sent it; of what the host sends, the one that is interrupted."""
    relid: u32
    """The channel; 0 for a channel message, which names its channel itself."""
    vmbus_version: u32
    """Negotiated version, major << 16 | minor; 0 before there is one."""
    if_type: Guid
    """Device class of the channel's offer; all zero for a message, or when no offer was seen."""
    if_instance: Guid
    """The device; all zero likewise."""


class _Channel(NamedTuple):
    interface: int | None
    if_type: Guid
    if_instance: Guid
    name: str


_NO_GUID: Final = Guid(bytes(16))


class PcapngWriter(NullTracer):
    """Writes what crosses the bus to a stream as it happens; a :class:`hvkernel.machine.tracing.Tracer`.

    It keeps one small record per offered channel and nothing of the packets.

    :param out: where the bytes go; not closed here.
    :param comment: of the section: what was run (seed, host profile), for the reader of the file.
    """

    def __init__(self, out: BinaryIO | Output, comment: str = "") -> None:
        self._out = out
        self._version = self._asked = 0
        self._interfaces = 0
        self._channels: dict[int, _Channel] = {}
        options = [(4, f"hvkernel {__version__}".encode())]
        if comment:
            options.insert(0, (1, comment.encode()))
        self._block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + _options(options))
        self._interface("vmbus", "channel messages")

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        """Write one channel message."""
        self._packet(0, t, to_host, self._header(KIND_MESSAGE, to_host, vp, 0, _NO_GUID, _NO_GUID), data)
        self._follow(to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        """Write one ring packet."""
        channel = self._channels.get(relid) or _Channel(None, _NO_GUID, _NO_GUID, f"relid {relid}")
        if channel.interface is None:
            channel = channel._replace(interface=self._interface(f"relid {relid}", channel.name))
            self._channels[relid] = channel
        assert channel.interface is not None
        header = self._header(KIND_PACKET, to_host, vp, relid, channel.if_type, channel.if_instance)
        self._packet(channel.interface, t, to_host, header, data)

    def _follow(self, to_host: bool, data: bytes) -> None:
        """Learn the version and the channels from the messages themselves."""
        number = _U32.unpack_from(data)[0] if len(data) >= 4 else 0
        if to_host:
            if number == Type.CHANNELMSG_INITIATE_CONTACT and len(data) >= VmbusChannelInitiateContact.SIZE:
                self._asked = VmbusChannelInitiateContact.unpack(data).vmbus_version_requested
            elif number == Type.CHANNELMSG_RELID_RELEASED and len(data) >= 12:
                self._channels.pop(_U32.unpack_from(data, 8)[0], None)
        elif number == Type.CHANNELMSG_VERSION_RESPONSE and len(data) >= VmbusChannelVersionResponse.SIZE:
            response = VmbusChannelVersionResponse.unpack(data)
            if response.version_supported and not response.connection_state:
                self._version = self._asked
                self._channels.clear()
        elif number == Type.CHANNELMSG_UNLOAD_RESPONSE:
            self._version = 0
        elif number == Type.CHANNELMSG_OFFERCHANNEL and len(data) >= VmbusChannelOfferChannel.SIZE:
            message = VmbusChannelOfferChannel.unpack(data)
            offer = message.offer
            sub = f" sub-channel {offer.sub_channel_index}" if offer.sub_channel_index else ""
            name = f"{guid_name(offer.if_type) or offer.if_type} {offer.if_instance}{sub}"
            self._channels[message.child_relid] = _Channel(None, offer.if_type, offer.if_instance, name)

    def _header(self, kind: int, to_host: bool, vp: int, relid: int, if_type: Guid, if_instance: Guid) -> bytes:
        return PcapHeader(
            HEADER_VERSION, kind, int(to_host), PcapHeader.SIZE, vp, relid, self._version, if_type, if_instance
        ).pack()

    def _interface(self, name: str, description: str) -> int:
        options = [(2, name.encode()), (3, description.encode()), (9, _TSRESOL)]
        self._block(_INTERFACE, struct.pack("<HHI", LINKTYPE, 0, MAX_CAPTURED) + _options(options))
        self._interfaces += 1
        return self._interfaces - 1

    def _packet(self, interface: int, t: int, to_host: bool, header: bytes, data: bytes) -> None:
        whole = header + data
        kept = whole[:MAX_CAPTURED]
        body = struct.pack("<IIIII", interface, t >> 32, t & 0xFFFF_FFFF, len(kept), len(whole)) + _padded(kept)
        self._block(_PACKET, body + _options([(2, _OUTBOUND if to_host else _INBOUND)]))

    def _block(self, kind: int, body: bytes) -> None:
        length = len(body) + 12
        self._out.write(struct.pack("<II", kind, length) + body + _U32.pack(length))


class PcapngSink(Sink):
    """The pcapng file of ``--trace``."""

    def __init__(self, output: Output, info: TraceInfo) -> None:
        super().__init__(output, info)
        self._writer = PcapngWriter(
            output,
            f"Linux {info.release} {info.arch} {info.bits}-bit, {info.page_size // 1024}K pages, "
            f"on {info.host}/gen{info.generation}, seed {info.seed}",
        )

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self._writer.message(t, vp, to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self._writer.packet(t, vp, relid, to_host, data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) & 3)


def _options(options: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options) + bytes(4)
