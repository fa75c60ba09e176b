"""A channel on the host's side: its states, its rings, and the face that its device sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.ring import VmbusPacketType
from hvkernel.abi.tlfs import HV_EVENT_FLAGS_COUNT
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.host import STATUS_SUCCESS, STATUS_UNSUCCESSFUL, GuestBuffer, Offer
from hvkernel.host.vmbus.messages import header
from hvkernel.host.vmbus.offers import EventTarget, offer_message
from hvkernel.host.vmbus.packets import build_packet, build_transfer_pages
from hvkernel.host.vmbus.ring import IncomingRing, OutgoingRing, RingCorrupt
from hvkernel.host.vmbus.steps import RemoteProtocolError, next_row
from hvkernel.host.vmbus.tables import CHANNEL, ChannelEvent, ChannelState, GpadlState
from hvkernel.host.vmbus.worker import Worker
from hvkernel.machine import Fault, HvPfn

if TYPE_CHECKING:
    from hvkernel.host.vmbus.devices import OfferedDevice
    from hvkernel.host.vmbus.gpadl import Gpadl
    from hvkernel.host.vmbus.server import VmbusServer
    from hvkernel.machine import Vmap

__all__ = ["OpenRefused", "Rings", "ServerChannel"]

_TARGET_VP_NONE: Final = 0xFFFF_FFFF
"""target_vp of an open that wants no interrupts (OpenVMM: VP_INDEX_DISABLE_INTERRUPT)."""

_COMPLETION: Final = int(VmbusPacketType.VM_PKT_COMP)

POLL_INTERVAL: Final = 100_000
"""How often a host without pending_send_sz looks for room, in 100 ns units. *unspecified*: 10 ms."""


class OpenRefused(Exception):
    """Why an OPENCHANNEL cannot be granted."""


class Rings:
    """The two rings of an open channel, on the host's mapping of the guest's pages."""

    __slots__ = ("_maps", "gpadl", "incoming", "outgoing")

    def __init__(self, gpadl: Gpadl, maps: tuple[Vmap, Vmap], incoming: IncomingRing, outgoing: OutgoingRing) -> None:
        self.gpadl = gpadl
        self._maps = maps
        self.incoming = incoming
        self.outgoing = outgoing

    def unmap(self) -> None:
        """Let go of the guest's pages."""
        for mapping in self._maps:
            mapping.unmap()


class ServerChannel:
    """One channel of an offered device. Implements :class:`hvkernel.api.host.Channel`.

    Its steps are :data:`hvkernel.host.vmbus.tables.CHANNEL`'s; everything that a step does is a method ``_do_...``.
    """

    __slots__ = (
        "_marked",
        "_message",
        "_open_events",
        "_polling",
        "_primary",
        "_rings",
        "_server",
        "_status",
        "_worker",
        "device",
        "events",
        "inflight",
        "lost",
        "monitor_id",
        "offer",
        "opens",
        "queue",
        "relid",
        "signals",
        "state",
        "target_vp",
        "unnecessary",
    )

    def __init__(self, server: VmbusServer, device: OfferedDevice, offer: Offer, primary: ServerChannel | None) -> None:
        self._server = server
        self.device = device
        self.offer = offer
        self._primary = primary
        self.state = ChannelState.UNOFFERED
        self.relid = 0
        self.events = EventTarget(0, 0)
        """What the offer says; an open may say otherwise (version 6.0)."""
        self._open_events: EventTarget | None = None
        self.monitor_id: int | None = None
        self.target_vp = 0
        self.opens = 0
        """How often the guest opened it, for the report."""
        self.signals = 0
        """Signals of the guest, over all opens."""
        self.unnecessary = 0
        """Those of them that came with nothing new in the ring, and no room that the host waited for."""
        self._marked = 0
        """The guest's write index at its last signal."""
        self.lost = False
        self.queue: deque[bytes] = deque()
        """Packets that wait for room in the ring."""
        self.inflight: dict[int, bool] = {}
        """Transaction ids whose GPA ranges the host holds."""
        self._rings: Rings | None = None
        self._message: abi.VmbusChannelOpenChannel | None = None
        self._status = STATUS_SUCCESS
        self._worker: Worker | None = None
        self._polling = False

    def __str__(self) -> str:
        sub = f" sub-channel {self.offer.sub_channel_index}" if self.offer.sub_channel_index else ""
        return f"relid {self.relid} ({self.device.name}{sub})"

    # states ----------------------------------------------------------------------------------------------------

    def step(self, event: ChannelEvent) -> None:
        """Take one step.

        :raises RemoteProtocolError: the table does not have it; nothing has changed.
        """
        self.state, effects = next_row(CHANNEL, str(self), self.state, event)
        for effect in effects:
            getattr(self, f"_do_{effect}")()

    def can(self, event: ChannelEvent) -> bool:
        """Whether the table has the step."""
        return event in CHANNEL[self.state]

    @property
    def connection_id(self) -> int:
        """Connection that the guest signals."""
        return (self._open_events or self.events).connection_id

    @property
    def event_flag(self) -> int:
        """Event flag that the host sets."""
        return (self._open_events or self.events).event_flag

    @property
    def is_rescinded(self) -> bool:
        """Whether the device is gone and the guest has still to release the relid."""
        return self.state is ChannelState.RESCINDED

    def open(self, message: abi.VmbusChannelOpenChannel, events: EventTarget | None = None) -> None:
        """Handle OPENCHANNEL: check it, map the rings, ask the device, answer.

        :param events: connection and event flag that the guest chose.
        :raises RemoteProtocolError: the channel is not in a state to be opened.
        """
        if self.state is not ChannelState.OFFERED:
            self.step(ChannelEvent.OPENCHANNEL)
            return
        self._message = message
        try:
            self._check_events(events)
            self._rings = self._take_rings(message)
        except OpenRefused as error:
            self._server.bus.record("refused", f"OPENCHANNEL of {self}: {error}")
            self._post_result(STATUS_UNSUCCESSFUL)
            return
        self.target_vp = message.target_vp
        self._open_events = events
        self.step(ChannelEvent.OPENCHANNEL)
        self._status = self.device.open(self)
        if self._status >> 31:
            self.step(ChannelEvent.DEVICE_REFUSES)
        else:
            self.step(ChannelEvent.DEVICE_ACCEPTS)
            self.device.opened(self)

    def _check_events(self, events: EventTarget | None) -> None:
        if events is None:
            return
        if not 0 < events.event_flag < HV_EVENT_FLAGS_COUNT:
            raise OpenRefused(f"event_flag {events.event_flag}: must be 1 to {HV_EVENT_FLAGS_COUNT - 1}")
        try:
            self._server.connect_event(self, events.connection_id)
        except ValueError as error:
            raise OpenRefused(str(error)) from None
        self._server.disconnect_event(events.connection_id)

    def _take_rings(self, message: abi.VmbusChannelOpenChannel) -> Rings:
        server, handle, split = self._server, message.ringbuffer_gpadlhandle, message.downstream_ringbuffer_pageoffset
        if not server.is_vp(message.target_vp) and message.target_vp != _TARGET_VP_NONE:
            raise OpenRefused(f"target_vp {message.target_vp} is not a processor of this guest")
        gpadl = server.gpadls.get(self.relid, handle)
        if gpadl is None or gpadl.state is not GpadlState.CREATED:
            state = "does not have" if gpadl is None else f"has only {gpadl.state}"
            raise OpenRefused(f"ringbuffer_gpadlhandle {handle:#x}, which the channel {state}")
        byte_count, byte_offset, pfns = gpadl.ranges[0]
        if len(gpadl.ranges) != 1 or byte_offset or byte_count & 0xFFF:
            raise OpenRefused(f"GPADL {handle:#x} is not one range of whole 4 KiB pages")
        if not 2 <= split <= len(pfns) - 2:
            raise OpenRefused(
                f"downstream_ringbuffer_pageoffset {split} does not split {len(pfns)} pages into two rings of 2 or more"
            )
        vmap = server.bus.machine.memory.host.vmap
        up = down = None
        try:
            up = vmap([HvPfn(p) for p in pfns[:split]])
            down = vmap([HvPfn(p) for p in pfns[split:]])
            incoming = IncomingRing(up, split)
            outgoing = OutgoingRing(down, len(pfns) - split, flow_control=self.has_flow_control)
        except (RingCorrupt, Fault) as error:
            for mapping in (up, down):
                if mapping is not None:
                    mapping.unmap()
            raise OpenRefused(str(error)) from None
        return Rings(gpadl, (up, down), incoming, outgoing)

    def _post_result(self, status: int) -> None:
        assert self._message is not None
        self._server.bus.post(
            abi.VmbusChannelOpenResult(
                header(Type.CHANNELMSG_OPENCHANNEL_RESULT), self._message.child_relid, self._message.openid, status
            ).pack()
        )

    def _do_post_offer(self) -> None:
        self._server.assign(self)
        self._server.bus.post(offer_message(self).pack())

    def _do_map_rings(self) -> None:
        assert self._rings is not None
        self._server.gpadls.opened(self._rings.gpadl)
        self._server.connect_event(self, self.connection_id)
        self._worker = Worker(self._server.bus, self)

    def _do_start(self) -> None:
        assert self._worker is not None
        self.opens += 1
        self._worker.start()
        self._server.monitor.enable(self)

    def _do_open_result(self) -> None:
        self._post_result(self._status)

    def _do_stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    def _do_unmap_rings(self) -> None:
        assert self._rings is not None
        rings, self._rings, self._worker = self._rings, None, None
        self._server.monitor.disable(self)
        self._server.disconnect_event(self.connection_id)
        self._open_events = None
        self.queue.clear()
        for trans_id in self.inflight:
            self._server.bus.unshare("gpa-range", (self.relid, trans_id))
        self.inflight.clear()
        rings.unmap()
        self._server.gpadls.closed(rings.gpadl)

    def _do_tell_device(self) -> None:
        self.device.close(self)

    def _do_let_go_gpadls(self) -> None:
        self._server.gpadls.let_go(self.relid)

    def _do_drop_gpadls(self) -> None:
        self._server.gpadls.drop(self.relid)

    def _do_free_relid(self) -> None:
        self._server.free(self)

    def _do_post_rescind(self) -> None:
        self._server.bus.post(
            abi.VmbusChannelRescindOffer(header(Type.CHANNELMSG_RESCIND_CHANNELOFFER), self.relid).pack()
        )

    def _do_retarget(self) -> None:
        # The new VP is taken in modify(), which knows the message.
        return

    def _do_modify_response(self) -> None:
        self._server.modify_response(self.relid, STATUS_SUCCESS)

    def modify(self, target_vp: int) -> None:
        """Handle MODIFYCHANNEL; the VP is known to exist.

        :raises RemoteProtocolError: the channel is not open, or was opened without interrupts (OpenVMM: channels.rs,
            modify_channel).
        """
        if self.can(ChannelEvent.MODIFYCHANNEL):
            if self.target_vp == _TARGET_VP_NONE:
                raise RemoteProtocolError(f"MODIFYCHANNEL of {self}, which was opened without interrupts")
            self.target_vp = target_vp
        self.step(ChannelEvent.MODIFYCHANNEL)

    # the worker's and the guest's side -------------------------------------------------------------------------

    @property
    def rings(self) -> Rings | None:
        """The rings while the channel is open or opening."""
        return self._rings

    def signalled(self, flag: int = 0) -> None:
        """Take a signal of the guest; one that tells the host nothing new is counted.

        :param flag: which event flag of its port was signalled; all of them mean this channel.
        """
        self.signals += 1
        rings, worker = self._rings, self._worker
        if rings is not None and worker is not None and not self.queue:
            write = rings.incoming.write_index
            if write == rings.incoming.position or (worker.due and write == self._marked):
                self.unnecessary += 1
                self._server.throttle.unnecessary(str(self))
            self._marked = write
        if worker is not None:
            worker.wake()

    def kick(self) -> None:
        """Let the host look at the rings."""
        if self._worker is not None:
            self._worker.wake()

    def signal_guest(self) -> None:
        """Interrupt the guest for this channel."""
        if self.target_vp != _TARGET_VP_NONE and not self._server.signal_guest(self) and not self.lost:
            self.lost = True
            self._server.bus.record("tolerated", f"{self}: VP {self.target_vp} takes no events on its SINT")

    # api.host.Channel ------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """VMBus version of the connection."""
        return self._server.bus.version or 0

    @property
    def user_data(self) -> bytes:
        """OPENCHANNEL's userdata."""
        return self._message.userdata if self._message is not None else bytes(abi.MAX_USER_DEFINED_BYTES)

    @property
    def is_open(self) -> bool:
        """Whether packets can flow."""
        return self._rings is not None

    @property
    def primary(self) -> ServerChannel:
        """The device's primary channel."""
        return self._primary or self

    @property
    def has_flow_control(self) -> bool:
        """Whether the guest signals when it made room (pending_send_sz, since WS2012)."""
        return self.version >= abi.VERSION_WIN8

    @property
    def incoming_bytes(self) -> int:
        """Data bytes of the guest's ring, 0 when closed."""
        return self._rings.incoming.size if self._rings else 0

    @property
    def outgoing_bytes(self) -> int:
        """Data bytes of the host's ring, 0 when closed."""
        return self._rings.outgoing.size if self._rings else 0

    def send_packet(self, kind: int, payload: bytes, trans_id: int = 0, flags: int = 0) -> None:
        """Write or queue one packet; see the Protocol."""
        self._send(build_packet(kind, payload, trans_id, flags))

    def send_transfer_pages(
        self, pageset: int, ranges: Sequence[tuple[int, int]], payload: bytes, trans_id: int = 0, flags: int = 0
    ) -> None:
        """Write or queue a transfer-page packet; see the Protocol."""
        self._send(build_transfer_pages(pageset, ranges, payload, trans_id, flags))

    def complete(self, trans_id: int, payload: bytes = b"", flags: int = 0) -> None:
        """Write or queue a completion; the host lets go of the request's GPA ranges first."""
        self.release(trans_id)
        self._send(build_packet(_COMPLETION, payload, trans_id, flags))

    def hold(self, trans_id: int, buffer: GuestBuffer) -> None:
        """Enter a request's pages into the ledger until it is completed."""
        if trans_id in self.inflight:
            self._server.bus.record("tolerated", f"{self}: transaction id {trans_id:#x} is in flight twice")
            self.release(trans_id)
        bus = self._server.bus
        is_ram = bus.machine.memory.is_ram
        # A page that is no memory of the guest faults when the device goes there; nothing of it is shared.
        pfns = [page for _, _, pages in buffer.ranges for pfn in pages if is_ram(page := HvPfn(pfn))]
        if pfns:
            self.inflight[trans_id] = True
            bus.ledger.share_pages(pfns, "gpa-range", (self.relid, trans_id), bus.machine.clock.now, self.target_vp)

    def release(self, trans_id: int) -> None:
        """Take a request's pages out of the ledger, if it had any."""
        if self.inflight.pop(trans_id, False):
            self._server.bus.ledger.revoke("gpa-range", (self.relid, trans_id))

    def _send(self, packet: bytes) -> None:
        rings = self._rings
        if rings is None:
            self._server.bus.record(
                "tolerated", f"{self}: the device sent {len(packet)} bytes after the close; dropped"
            )
            return
        outgoing = rings.outgoing
        if not outgoing.fits(len(packet)):
            raise ValueError(f"{self}: a packet of {len(packet)} bytes never fits a ring of {outgoing.size}")
        if self.queue:
            self.queue.append(packet)
            return
        try:
            signal = outgoing.write(packet)
        except RingCorrupt as error:
            self.corrupt(error)
            return
        if signal is None:
            self.queue.append(packet)
            self.flush()
            return
        if self._server.bus.machine.tracer is not None:
            self._trace(packet)
        if signal:
            self.signal_guest()

    def _trace(self, packet: bytes) -> None:
        machine = self._server.bus.machine
        if machine.tracer is not None:
            machine.tracer.packet(machine.clock.now, self.target_vp, self.relid, False, packet)

    def flush(self) -> None:
        """Write what waits for room, as far as there is some."""
        rings = self._rings
        if rings is None or not self.queue:
            return
        signal_guest = False
        try:
            while self.queue:
                signal = rings.outgoing.write(self.queue[0])
                if signal is None:
                    if rings.outgoing.wait_for(len(self.queue[0])):
                        continue
                    if not self.has_flow_control:
                        self._poll()
                    break
                self._trace(self.queue.popleft())
                signal_guest |= signal
            else:
                rings.outgoing.stop_waiting()
        except RingCorrupt as error:
            self.corrupt(error)
            return
        if signal_guest:
            self.signal_guest()

    def _poll(self) -> None:
        # Nobody will tell this host that there is room.
        if not self._polling:
            self._polling = True
            clock = self._server.bus.machine.clock
            clock.at(clock.now + POLL_INTERVAL, self._polled)

    def _polled(self) -> None:
        self._polling = False
        self.kick()

    def corrupt(self, error: Exception) -> None:
        """Stop using rings that the guest broke. The channel stays open: the guest has to close it.

        *unspecified*: what a real host does. It must not crash and must not follow the broken index.
        """
        self._server.bus.record("refused", f"{self}: {error}; the host stops using the rings")
        self.queue.clear()
        if self._worker is not None:
            self._worker.stop()

    def gpadl(self, handle: int) -> GuestBuffer | None:
        """Return the memory of a complete GPADL of this channel's device."""
        for relid in (self.relid, self.primary.relid):
            gpadl = self._server.gpadls.get(relid, handle)
            if gpadl is not None and gpadl.state in (GpadlState.CREATED, GpadlState.IN_RING):
                return gpadl.buffer()
        return None

    def offer_subchannels(self, count: int) -> None:
        """Offer more channels of this device."""
        self._server.offer_subchannels(self.primary, count)
