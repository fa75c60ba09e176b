"""Perfetto's trace format, for ui.perfetto.dev and its trace processor.

Tracks: one per CPU with the tasks, interrupts and tasklets that run on it as slices and its tracepoints as instants;
one for the host's tasks; two for the channel messages; and for each channel two with its packets, two counters with the
bytes in its rings, and as many with requests as there are at once. A request is a slice from its packet to its
completion's. A flow leads from it to the moment when the other side takes it, and on to the completion.

Messages and field numbers: perfetto's protos/perfetto/trace, trace_packet.proto, track_event/track_event.proto,
track_event/track_descriptor.proto, track_event/counter_descriptor.proto, track_event/debug_annotation.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Guid
from hvkernel.trace.bus import Channel, Channels, Request, message_name
from hvkernel.trace.protobuf import block, fixed64, number, text
from hvkernel.trace.sink import Ending, Output, Sink, TraceInfo

if TYPE_CHECKING:
    from hvkernel.machine.tracing import EventRow, Where

__all__ = ["PerfettoSink"]

NS_PER_UNIT: Final = 100

# Trace, TracePacket
_PACKET: Final = 1
_TIMESTAMP: Final = 8
_TRACK_EVENT: Final = 11
_TRACK_DESCRIPTOR: Final = 60
_SEQUENCE: Final = number(10, 1)
"""trusted_packet_sequence_id: one writer."""

# TrackEvent
_BEGIN: Final = number(9, 1)
_END: Final = number(9, 2)
_INSTANT: Final = number(9, 3)
_COUNTER: Final = number(9, 4)
_ANNOTATION: Final = 4
_TRACK: Final = 11
_CATEGORY: Final = 22
_NAME: Final = 23
_COUNTER_VALUE: Final = 30
_FLOW: Final = 47
_LAST_OF_FLOW: Final = 48

# DebugAnnotation
_UINT: Final = 3
_INT: Final = 4
_STRING: Final = 6
_ANNOTATION_NAME: Final = 10

# TrackDescriptor
_UUID: Final = 1
_TRACK_NAME: Final = 2
_PARENT: Final = 5
_BY_RANK: Final = number(11, 3)
"""child_ordering: EXPLICIT, by sibling_order_rank."""
_RANK: Final = 12
_BYTES_COUNTER: Final = block(8, number(3, 3))
"""CounterDescriptor with unit UNIT_SIZE_BYTES."""

GUEST: Final = 1
HOST: Final = 2
VMBUS: Final = 3
MESSAGES: Final = (4, 5)
"""Channel messages to the guest, to the host."""
CPU_BASE: Final = 1 << 20
"""First uuid of a CPU's track; the VP index is added."""
CHANNEL_BASE: Final = 1 << 32
CHANNEL_SPAN: Final = 1 << 20
"""Uuids of one channel: itself, packets to the guest and to the host, bytes in either ring, then requests by slot."""
PACKETS: Final = 1
FILLED: Final = 3
REQUESTS: Final = 16

MAX_NAMES: Final = 4096
"""Names that are kept as they are written; a host that invents messages has no end of them."""

_DIRECTION: Final = ("to guest", "to host")


class PerfettoSink(Sink):
    """Writes a Perfetto trace. Time stamps are the machine's, in nanoseconds."""

    def __init__(self, output: Output, info: TraceInfo) -> None:
        super().__init__(output, info)
        self._channels = Channels()
        self._described: dict[int, int] = {}
        """Channel number to the slots of it that have a track."""
        self._vps: dict[int, None] = {}
        """VP indexes that have a track."""
        self._depth: dict[int, int] = {}
        """Track to its open slices."""
        self._tracks: dict[int, bytes] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        """Tracks and names as they are written."""
        self._last = 0
        self._describe(GUEST, "guest", more=_BY_RANK)
        self._describe(HOST, "host")
        self._describe(VMBUS, "VMBus", more=_BY_RANK)
        for rank, direction in enumerate(_DIRECTION):
            self._describe(MESSAGES[rank], f"messages {direction}", VMBUS, number(_RANK, rank))
        about = (
            ("kernel", f"Linux {info.release} {info.arch} {info.bits}-bit, {info.page_size // 1024}K pages"),
            ("host", f"{info.host}/gen{info.generation}"),
            ("seed", info.seed),
        )
        self._event(0, VMBUS, _INSTANT, f"hvkernel {info.version}", "about", _annotations(about))

    def finish(self, ending: Ending) -> None:
        """End what goes on, and name the CPUs: only now is it known which number the guest gave to which VP."""
        for track, depth in self._depth.items():
            for _ in range(depth):
                self._event(self._last, track, _END)
        for vp in sorted(self._vps):
            cpu = ending.cpus.get(vp)
            name = f"VP {vp}" if cpu is None else f"CPU {cpu} (VP {vp})"
            self._describe(CPU_BASE + vp, name, GUEST, number(_RANK, vp if cpu is None else cpu))

    # the guest and the host ----------------------------------------------------------------------------------------

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        """An instant on the CPU's track."""
        fields = [
            (name, str(Guid(value)) if isinstance(value, bytes) else value)
            for name, value in zip(event.field_names, values, strict=True)
        ]
        rest = _annotations((*fields, ("comm", where.comm), ("pid", where.pid)))
        self._event(where.t, self._processor(where.vp), _INSTANT, event.name, event.system, rest)

    def begin(self, t: int, vp: int | None, kind: str, name: str) -> None:
        """A slice."""
        track = self._processor(vp)
        self._depth[track] = self._depth.get(track, 0) + 1
        self._event(t, track, _BEGIN, name, kind)

    def end(self, t: int, vp: int | None, kind: str) -> None:
        """The end of a slice; one whose beginning was not seen has none."""
        track = self._processor(vp)
        if self._depth.get(track):
            self._depth[track] -= 1
            self._event(t, track, _END)

    def _processor(self, vp: int | None) -> int:
        if vp is None:
            return HOST
        self._vps.setdefault(vp, None)
        return CPU_BASE + vp

    # the bus -------------------------------------------------------------------------------------------------------

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        """An instant."""
        channel = self._channels.message(to_host, data)
        about: list[tuple[str, int | str]] = [("vp", vp), ("bytes", len(data))]
        if channel is not None:
            about.append(("channel", channel.name))
        name = message_name(data)
        self._event(t, MESSAGES[to_host], _INSTANT, name, "message", _annotations(about))
        if channel is not None and to_host and name in _RINGS_GO:
            for request in channel.reset():
                self._end_request(t, channel, request)
            if channel.number in self._described:
                for towards in (False, True):
                    self._count(t, channel, towards)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        """An instant, the bytes in the ring, and the begin or the end of a request."""
        channel = self._channels.get(relid)
        base = self._channel_tracks(channel)
        packet = self._channels.packet(channel, to_host, data)
        about = _annotations((("trans_id", packet.trans_id), ("bytes", len(data)), ("vp", vp)))
        if packet.dropped is not None:
            self._end_request(t, channel, packet.dropped)
        request = packet.request
        if request is not None and not packet.completes:
            track = self._request_track(channel, request)
            self._event(t, track, _BEGIN, packet.kind, "request", about + fixed64(_FLOW, request.number))
        elif request is not None:
            self._end_request(t, channel, request)
            about += fixed64(_LAST_OF_FLOW, request.number)
        self._event(t, base + PACKETS + to_host, _INSTANT, packet.kind, "packet", about)
        self._count(t, channel, to_host)

    def taken(self, t: int, relid: int, to_host: bool, size: int) -> None:
        """The bytes in the ring, and where the flow of each request that was taken goes on."""
        channel = self._channels.get(relid)
        base = self._channel_tracks(channel)
        for packet in self._channels.taken(channel, to_host, size):
            if packet.request is not None and not packet.completes:
                about = _annotations((("trans_id", packet.trans_id),)) + fixed64(_FLOW, packet.request.number)
                self._event(t, base + PACKETS + to_host, _INSTANT, f"{packet.kind} taken", "taken", about)
        self._count(t, channel, to_host)

    def _end_request(self, t: int, channel: Channel, request: Request) -> None:
        self._event(t, self._request_track(channel, request), _END)

    def _count(self, t: int, channel: Channel, to_host: bool) -> None:
        track = self._channel_tracks(channel) + FILLED + to_host
        self._event(t, track, _COUNTER, rest=number(_COUNTER_VALUE, channel.filled[to_host]))

    def _channel_tracks(self, channel: Channel) -> int:
        base = CHANNEL_BASE + channel.number * CHANNEL_SPAN
        if channel.number not in self._described:
            self._described[channel.number] = 0
            self._describe(base, channel.name, VMBUS, number(_RANK, len(MESSAGES) + channel.number))
            for to_host, direction in enumerate(_DIRECTION):
                self._describe(base + PACKETS + to_host, f"packets {direction}", base)
                self._describe(base + FILLED + to_host, f"bytes {direction}", base, _BYTES_COUNTER)
        return base

    def _request_track(self, channel: Channel, request: Request) -> int:
        base = self._channel_tracks(channel) + REQUESTS
        slots = self._described[channel.number]
        while slots <= request.slot:
            self._describe(base + slots, "requests", base - REQUESTS)
            slots += 1
        self._described[channel.number] = slots
        return base + request.slot

    # packets of the file -------------------------------------------------------------------------------------------

    def _describe(self, track: int, name: str, parent: int | None = None, more: bytes = b"") -> None:
        above = b"" if parent is None else number(_PARENT, parent)
        descriptor = number(_UUID, track) + text(_TRACK_NAME, name) + above + more
        self.output.write(block(_PACKET, _SEQUENCE + block(_TRACK_DESCRIPTOR, descriptor)))

    def _event(self, t: int, track: int, kind: bytes, name: str = "", category: str = "", rest: bytes = b"") -> None:
        on = self._tracks.get(track)
        if on is None:
            on = self._tracks[track] = number(_TRACK, track)
        event = kind + on + rest
        if name:
            named = self._names.get((category, name))
            if named is None:
                if len(self._names) >= MAX_NAMES:
                    self._names.clear()
                named = self._names[category, name] = text(_CATEGORY, category) + text(_NAME, name)
            event += named
        self._last = t
        self.output.write(block(_PACKET, number(_TIMESTAMP, t * NS_PER_UNIT) + _SEQUENCE + block(_TRACK_EVENT, event)))


_RINGS_GO: Final = tuple(
    kind.name.removeprefix("CHANNELMSG_")
    for kind in (Type.CHANNELMSG_OPENCHANNEL, Type.CHANNELMSG_CLOSECHANNEL, Type.CHANNELMSG_RELID_RELEASED)
)


def _annotations(about: Sequence[tuple[str, int | str]]) -> bytes:
    parts = []
    for name, value in about:
        if isinstance(value, str):
            shown = text(_STRING, value)
        else:
            shown = number(_INT if value < 0 else _UINT, value)
        parts.append(block(_ANNOTATION, text(_ANNOTATION_NAME, name) + shown))
    return b"".join(parts)
