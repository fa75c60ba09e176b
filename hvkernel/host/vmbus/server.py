"""The VMBus server: it takes the guest's channel messages, one at a time, in a host task of its own.

A guest posts to connection 1, or from protocol 5.0 on starts at connection 4 (drivers/hv/connection.c:
vmbus_negotiate_version). Every message is checked against the table of messages and the state tables; what a guest does
wrong is recorded, and answered where the message has an answer that says no.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.tlfs import HV_STATUS_INSUFFICIENT_BUFFERS, HV_STATUS_SUCCESS
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.host import STATUS_UNSUCCESSFUL, Offer
from hvkernel.host.vmbus.bus import CHANNEL_MESSAGE, Bus
from hvkernel.host.vmbus.channel import ServerChannel
from hvkernel.host.vmbus.devices import DeviceTable, OfferedDevice, SlotSpec
from hvkernel.host.vmbus.gpadl import GpadlTable, refusal
from hvkernel.host.vmbus.interrupts import InterruptPage
from hvkernel.host.vmbus.messages import VERSION_COPPER, BadMessage, header, parse_message
from hvkernel.host.vmbus.monitor import Monitor
from hvkernel.host.vmbus.offers import MAX_CHANNELS, MAX_MONITORS, Numbers, connection_id, offer_message, user_defined
from hvkernel.host.vmbus.steps import RemoteProtocolError, next_row
from hvkernel.host.vmbus.tables import CONNECTION, ChannelEvent, ChannelState, ConnectionEvent, ConnectionState

if TYPE_CHECKING:
    from hvkernel.abi.wire import Guid
    from hvkernel.host.vmbus.hypervisor import Accepts, Hypervisor
    from hvkernel.machine import Task

__all__ = ["DeviceStatus", "VmbusServer"]

CONNECTION_SUCCESSFUL: Final = 0
"""connection_state of a VERSION_RESPONSE (OpenVMM: protocol.rs, ConnectionState::SUCCESSFUL)."""

CONNECTION_FAILED_UNKNOWN: Final = 2
"""connection_state (OpenVMM: ConnectionState::FAILED_UNKNOWN_FAILURE)."""

MESSAGE_BUFFERS: Final = 16
"""Messages of the guest that may wait at a port (TLFS, "Guest Message Buffers")."""

MIB: Final = 1 << 20

HANDLERS: Final[Mapping[Type, str]] = MappingProxyType(
    {
        Type.CHANNELMSG_REQUESTOFFERS: "_on_request_offers",
        Type.CHANNELMSG_OPENCHANNEL: "_on_open_channel",
        Type.CHANNELMSG_CLOSECHANNEL: "_on_close_channel",
        Type.CHANNELMSG_GPADL_HEADER: "_on_gpadl_header",
        Type.CHANNELMSG_GPADL_BODY: "_on_gpadl_body",
        Type.CHANNELMSG_GPADL_TEARDOWN: "_on_gpadl_teardown",
        Type.CHANNELMSG_RELID_RELEASED: "_on_relid_released",
        Type.CHANNELMSG_UNLOAD: "_on_unload",
        Type.CHANNELMSG_TL_CONNECT_REQUEST: "_on_tl_connect_request",
        Type.CHANNELMSG_MODIFYCHANNEL: "_on_modify_channel",
    }
)
"""Method for each message of the guest but INITIATE_CONTACT, whose answer depends on the connection it came by."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """What the report says of one offered device, from the host's side."""

    name: str
    class_guid: Guid
    instance_guid: Guid
    relid: int
    """0 when it is not offered now."""
    modelled: bool
    owner: str
    """Plugin that makes it, as it registered."""
    opens: int
    """How often the guest opened its primary channel."""
    state: str
    protocol: str | None
    """What driver and device agreed on."""


class VmbusServer:
    """The host's side of the bus.

    :param host: the hypervisor.
    :param accepts: protocol versions, connection 4 and the GPADL limit of the host profile.
    :param slots: the devices of the VM in the order of the offers.
    :param table: who makes the devices.
    :param message_buffers: how many of the guest's messages may wait; more get HV_STATUS_INSUFFICIENT_BUFFERS, which
        the kernel retries (drivers/hv/connection.c: vmbus_post_msg). The hypervisor has sixteen for
        each port (TLFS, "Guest Message Buffers"); both message connections lead to one queue here.
    """

    __slots__ = (
        "_accepts",
        "_buffers",
        "_classes",
        "_inbox",
        "_kicked",
        "_monitors",
        "_reply",
        "_request",
        "_task",
        "bus",
        "by_relid",
        "devices",
        "gpadls",
        "interrupts",
        "monitor",
        "numbers",
        "requests",
        "state",
    )

    def __init__(
        self,
        host: Hypervisor,
        accepts: Accepts,
        slots: Sequence[SlotSpec],
        table: DeviceTable,
        *,
        message_buffers: int = MESSAGE_BUFFERS,
    ) -> None:
        self.bus = Bus(host)
        self._accepts = accepts
        self._buffers = message_buffers
        self._inbox: deque[tuple[int, int, bytes] | Callable[[], None]] = deque()
        self._task: Task | None = None
        self._kicked = False
        self.state = ConnectionState.DISCONNECTED
        self.numbers = Numbers(1, MAX_CHANNELS)
        self._monitors = Numbers(0, MAX_MONITORS - 1)
        self.by_relid: dict[int, ServerChannel] = {}
        self.gpadls = GpadlTable(self.bus, accepts.gpadl_total_mb * MIB)
        self.monitor = Monitor(self.bus)
        self.interrupts = InterruptPage(self)
        self.requests: list[int] = []
        """Versions that the guest asked for, in order."""
        self._request: abi.VmbusChannelInitiateContact | None = None
        self._reply = (0, 0)
        self._classes = table
        self.devices: list[OfferedDevice] = []
        for spec in slots:
            self._check_name(spec)
            self._add(spec)

    def _add(self, spec: SlotSpec) -> OfferedDevice:
        device = OfferedDevice(self.bus, spec, self._classes, self.rescind)
        clock = self.bus.machine.clock
        if spec.offered_at > clock.now:
            clock.at(spec.offered_at, lambda: self._defer(lambda: self._offer_if_due(device)))
        device.channels.append(ServerChannel(self, device, device.offer, None))
        self.devices.append(device)
        return device

    def start(self) -> None:
        """Open the message ports."""
        ports = self.bus.host.ports
        ports.connect_message(abi.VMBUS_MESSAGE_CONNECTION_ID, self._on_message_1)
        if self._accepts.message_connection_4:
            ports.connect_message(abi.VMBUS_MESSAGE_CONNECTION_ID_4, self._on_message_4)

    # the task --------------------------------------------------------------------------------------------------

    def _on_message_1(self, vp: int, message_type: int, payload: bytes) -> int:
        return self._on_message(abi.VMBUS_MESSAGE_CONNECTION_ID, vp, message_type, payload)

    def _on_message_4(self, vp: int, message_type: int, payload: bytes) -> int:
        return self._on_message(abi.VMBUS_MESSAGE_CONNECTION_ID_4, vp, message_type, payload)

    def _on_message(self, connection: int, vp: int, message_type: int, payload: bytes) -> int:
        if message_type != CHANNEL_MESSAGE:
            self.bus.record("ignored", f"message type {message_type:#x} on connection {connection}; the bus uses 1")
            return HV_STATUS_SUCCESS
        if len(self._inbox) >= self._buffers:
            self.bus.record("throttled", f"{self._buffers} messages wait already")
            return HV_STATUS_INSUFFICIENT_BUFFERS
        machine = self.bus.machine
        if machine.tracer is not None:
            machine.tracer.message(machine.clock.now, vp, True, payload)
        self._defer((connection, vp, payload))
        return HV_STATUS_SUCCESS

    def _defer(self, work: tuple[int, int, bytes] | Callable[[], None]) -> None:
        self._inbox.append(work)
        machine = self.bus.machine
        if self._task is None:
            self._task = machine.spawn(self._run, name="vmbus", side="host")
        elif not self._kicked:
            self._kicked = True
            machine.wake(self._task)

    def _run(self) -> None:
        while True:
            while self._inbox:
                work = self._inbox.popleft()
                if isinstance(work, tuple):
                    self._handle(*work)
                else:
                    work()
            self._kicked = False
            self.bus.machine.block()

    def _handle(self, connection: int, vp: int, payload: bytes) -> None:
        try:
            number, message = parse_message(payload, self.bus.version)
            if isinstance(message, abi.VmbusChannelInitiateContact):
                self._initiate_contact(message, connection)
            else:
                getattr(self, HANDLERS[number])(message, payload, vp)
        except BadMessage as error:
            self.bus.record("ignored", str(error))
        except RemoteProtocolError as error:
            self.bus.record("refused", str(error))

    # connection ------------------------------------------------------------------------------------------------

    def step(self, event: ConnectionEvent) -> None:
        """Take one step of the connection.

        :raises RemoteProtocolError: the table does not have it; nothing has changed.
        """
        self.state, effects = next_row(CONNECTION, "the connection", self.state, event)
        for effect in effects:
            getattr(self, f"_do_{effect}")()

    def is_vp(self, vp: int) -> bool:
        """Whether a VP index exists."""
        return 0 <= vp < len(self.bus.machine.vps)

    def _initiate_contact(self, message: abi.VmbusChannelInitiateContact, connection: int) -> None:
        version = message.vmbus_version_requested
        self.requests.append(version)
        self._request = message
        # Only guests from 2012 R2 on name the processor that gets the messages (OpenVMM: handle_initiate_contact).
        vp = message.target_vcpu if version >= abi.VERSION_WIN8_1 else 0
        if self.is_vp(vp):
            self.bus.message_vp = vp
        if version >= abi.VERSION_WIN10_V5 and connection != abi.VMBUS_MESSAGE_CONNECTION_ID_4:
            self.bus.record("tolerated", f"INITIATE_CONTACT for {_text(version)} on connection {connection}, not 4")
        if version not in self._accepts.versions:
            self._reply = (0, CONNECTION_SUCCESSFUL)
            self.step(ConnectionEvent.CONTACT_REFUSED)
            return
        why = self._bad_contact(message, vp)
        if why:
            self.bus.record("refused", f"INITIATE_CONTACT for {_text(version)}: {why}")
            # Before WS2012 the answer had no room for a reason.
            supported = int(version >= abi.VERSION_WIN8)
            self._reply = (supported, CONNECTION_FAILED_UNKNOWN if supported else CONNECTION_SUCCESSFUL)
            self.step(ConnectionEvent.CONTACT_REFUSED)
            return
        self._reply = (1, CONNECTION_SUCCESSFUL)
        self.step(ConnectionEvent.CONTACT_ACCEPTED)

    def _bad_contact(self, message: abi.VmbusChannelInitiateContact, vp: int) -> str:
        if not self.is_vp(vp):
            return f"target_vcpu {vp} is not a processor of this guest"
        if message.vmbus_version_requested >= abi.VERSION_WIN10_V5 and message.msg_sint != abi.VMBUS_MESSAGE_SINT:
            return f"msg_sint {message.msg_sint} is not {abi.VMBUS_MESSAGE_SINT}"
        pages = (message.monitor_page1, message.monitor_page2)
        if bool(pages[0]) != bool(pages[1]):
            return f"monitor pages {pages[0]:#x} and {pages[1]:#x}: both or neither"
        for gpa in pages:
            if gpa & 0xFFF or (gpa and not self.bus.is_ram(gpa >> 12)):
                return f"monitor page {gpa:#x} is not a page of this guest's memory"
        return ""

    def _do_note_reconnect(self) -> None:
        self.bus.record("tolerated", "INITIATE_CONTACT on a live connection; the old one is dropped")

    def _do_connect(self) -> None:
        assert self._request is not None
        request, vp = self._request, self.bus.message_vp
        self.bus.version = request.vmbus_version_requested
        self.monitor.connect(request.monitor_page1, request.monitor_page2, vp)
        if self.bus.version < abi.VERSION_WIN8 and request.interrupt_page:
            self.interrupts.connect(request.interrupt_page, vp)

    def _do_version_response(self) -> None:
        assert self._request is not None
        version = self._request.vmbus_version_requested
        supported, state = self._reply
        selected = 0
        if supported:
            # From 5.0 on, the connection to post to from now on; before, the version (OpenVMM: send_version_response).
            selected = abi.VMBUS_MESSAGE_CONNECTION_ID if version >= abi.VERSION_WIN10_V5 else version
        payload = abi.VmbusChannelVersionResponse(
            header(Type.CHANNELMSG_VERSION_RESPONSE), supported, state, 0, selected
        ).pack()
        if supported and version >= VERSION_COPPER:
            payload += bytes(4)  # supported_features: none
        self.bus.post(payload)

    def _do_disconnect(self) -> None:
        for device in list(self.devices):
            for channel in device.channels:
                channel.step(ChannelEvent.DISCONNECT)
            self._drop_removed(device)
        self.monitor.disconnect()
        self.interrupts.disconnect()
        self.bus.version = None

    def _do_unload_response(self) -> None:
        self.bus.post(header(Type.CHANNELMSG_UNLOAD_RESPONSE).pack())

    def _do_offer_all(self) -> None:
        for device in list(self.devices):
            self._offer_if_due(device)

    def _do_alloffers_delivered(self) -> None:
        self.bus.post(header(Type.CHANNELMSG_ALLOFFERS_DELIVERED).pack())

    # messages --------------------------------------------------------------------------------------------------

    def _on_request_offers(self, message: abi.VmbusChannelMessageHeader, payload: bytes, vp: int) -> None:
        self.step(ConnectionEvent.REQUEST_OFFERS)

    def _on_unload(self, message: abi.VmbusChannelMessageHeader, payload: bytes, vp: int) -> None:
        self.step(ConnectionEvent.UNLOAD)

    def _channel(self, relid: int, name: str) -> ServerChannel:
        channel = self.by_relid.get(relid)
        if channel is None:
            raise BadMessage(f"{name} for relid {relid}, which is not offered")
        return channel

    def _on_gpadl_header(self, message: abi.VmbusChannelGpadlHeader, payload: bytes, vp: int) -> None:
        if message.child_relid not in self.by_relid:
            self.bus.post(refusal(message.child_relid, message.gpadl))
        self._channel(message.child_relid, "GPADL_HEADER")
        self.gpadls.header(message, payload, vp)

    def _on_gpadl_body(self, message: abi.VmbusChannelGpadlBody, payload: bytes, vp: int) -> None:
        self.gpadls.body(message, payload)

    def _on_gpadl_teardown(self, message: abi.VmbusChannelGpadlTeardown, payload: bytes, vp: int) -> None:
        self._channel(message.child_relid, "GPADL_TEARDOWN")
        self.gpadls.teardown(message.child_relid, message.gpadl)

    def _on_open_channel(self, message: abi.VmbusChannelOpenChannel, payload: bytes, vp: int) -> None:
        try:
            self._channel(message.child_relid, "OPENCHANNEL").open(message)
        except (BadMessage, RemoteProtocolError):
            # *unspecified*: OpenVMM drops these without an answer, which leaves the guest waiting for ever.
            self.bus.post(
                abi.VmbusChannelOpenResult(
                    header(Type.CHANNELMSG_OPENCHANNEL_RESULT),
                    message.child_relid,
                    message.openid,
                    STATUS_UNSUCCESSFUL,
                ).pack()
            )
            raise

    def _on_close_channel(self, message: abi.VmbusChannelCloseChannel, payload: bytes, vp: int) -> None:
        channel = self._channel(message.child_relid, "CLOSECHANNEL")
        channel.step(ChannelEvent.CLOSECHANNEL)
        if channel.primary is channel:
            for sub in channel.device.channels[1:]:
                if sub.can(ChannelEvent.RESCIND):
                    sub.step(ChannelEvent.RESCIND)

    def _on_relid_released(self, message: abi.VmbusChannelRelidReleased, payload: bytes, vp: int) -> None:
        channel = self._channel(message.child_relid, "RELID_RELEASED")
        channel.step(ChannelEvent.RELID_RELEASED)
        self._drop_removed(channel.device)

    def _on_modify_channel(self, message: abi.VmbusChannelModifychannel, payload: bytes, vp: int) -> None:
        try:
            channel = self._channel(message.child_relid, "MODIFYCHANNEL")
            if not self.is_vp(message.target_vp):
                raise RemoteProtocolError(f"MODIFYCHANNEL of {channel} to VP {message.target_vp}, which does not exist")
            channel.modify(message.target_vp)
        except (BadMessage, RemoteProtocolError):
            self.modify_response(message.child_relid, STATUS_UNSUCCESSFUL)
            raise

    def modify_response(self, relid: int, status: int) -> None:
        """Answer MODIFYCHANNEL, which has an answer since 5.3 (drivers/hv/channel.c: vmbus_send_modifychannel)."""
        if (self.bus.version or 0) >= abi.VERSION_WIN10_V5_3:
            self.bus.post(
                abi.VmbusChannelModifychannelResponse(
                    header(Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE), relid, status
                ).pack()
            )

    def _on_tl_connect_request(self, message: abi.VmbusChannelTlConnectRequest, payload: bytes, vp: int) -> None:
        # No service listens on this host, and the kernel ignores CHANNELMSG_TL_CONNECT_RESULT.
        self.bus.record("refused", f"TL_CONNECT_REQUEST to service {message.host_service_id}: no service listens")

    # what channels need ----------------------------------------------------------------------------------------

    def assign(self, channel: ServerChannel) -> None:
        """Give a channel its numbers for this connection."""
        relid = self.numbers.take()
        if relid is None:
            raise ValueError(f"{channel.device.name}: all {MAX_CHANNELS} relids are in use")
        channel.relid = relid
        channel.connection_id = connection_id(relid)
        channel.monitor_id = self._monitors.take() if channel.offer.monitored and self.monitor.usable else None
        self.by_relid[relid] = channel

    def free(self, channel: ServerChannel) -> None:
        """Take a channel's numbers back."""
        del self.by_relid[channel.relid]
        self.numbers.free(channel.relid)
        if channel.monitor_id is not None:
            self._monitors.free(channel.monitor_id)
        channel.relid, channel.monitor_id = 0, None

    def connect_event(self, channel: ServerChannel) -> None:
        """Let the guest signal a channel that opens."""
        self.bus.host.ports.connect_event(channel.connection_id, lambda flag: channel.kick())

    def disconnect_event(self, channel: ServerChannel) -> None:
        """End that."""
        self.bus.host.ports.disconnect(channel.connection_id)

    def signal_guest(self, channel: ServerChannel) -> bool:
        """Interrupt the guest for a channel: its event flag on its VP, or before WS2012 the interrupt page on VP 0."""
        if (self.bus.version or 0) >= abi.VERSION_WIN8:
            return self.bus.host.synic.signal_event(channel.target_vp, abi.VMBUS_MESSAGE_SINT, channel.relid)
        return self.interrupts.signal(channel.relid)

    # devices that come and go: the host's own events, each in the server's task ---------------------------------

    def device(self, name: str) -> OfferedDevice:
        """Return the device of the VM called ``name``; one that was re-offered while the old one goes is the new one.

        :raises ValueError: there is none.
        """
        for device in reversed(self.devices):
            if device.name == name:
                return device
        raise ValueError(f"the VM has no device called {name!r}; it has {', '.join(d.name for d in self.devices)}")

    def offer(self, spec: SlotSpec) -> None:
        """Give the VM one more device. It is offered at once when the guest has had its offers and its time has come
        (``offered_at``), else with the others. A second device of one class and instance is possible: a host that
        offers twice.

        :raises ValueError: the VM has a device of that name.
        """
        self._check_name(spec)
        self._defer(lambda: self._offer(spec))

    def repeat_offer(self, name: str) -> None:
        """Post a device's OFFERCHANNEL messages once more, with the same relids: a host that says everything twice.
        Nothing is posted of a device that is not offered."""
        device = self.device(name)
        self._defer(lambda: self._repeat_offer(device))

    def rescind(self, device: OfferedDevice | str) -> None:
        """Take a device away: RESCIND_CHANNELOFFER of all its channels, sub-channels first."""
        gone = self.device(device) if isinstance(device, str) else device
        self._defer(lambda: self._rescind(gone))

    def reoffer(self, name: str, *, at_once: bool = False) -> None:
        """Take a device away and offer it again: the same class and instance, a new relid, a device made anew.

        :param at_once: offer it right behind the rescind. False waits until the guest has released the old relid,
            as OpenVMM does (channels.rs: ChannelState::Reoffered). *unspecified*: what Hyper-V does.
        """
        device = self.device(name)
        self._defer(lambda: self._reoffer(device, at_once))

    def change_offer(self, name: str, **changes: Any) -> None:
        """Change what a device's next offer says: the fields of :class:`hvkernel.api.host.Offer`.

        :raises ValueError: a field that an offer does not have, or more user_defined than fits.
        """
        device = self.device(name)
        unknown = next((field for field in changes if field not in Offer.__dataclass_fields__), None)
        if unknown is not None:
            raise ValueError(f"an offer has no field {unknown!r}")
        offer = replace(device.offer, **changes)
        user_defined(offer.pipe_mode, offer.user_defined, name)
        self._defer(lambda: device.change(offer))

    def reorder(self, names: Sequence[str]) -> None:
        """Let the next connection's offers come in this order; devices that are not named come behind.

        :raises ValueError: no such device.
        """
        first = [self.device(name) for name in names]
        self._defer(lambda: self._reorder(first))

    def offer_subchannels(self, primary: ServerChannel | str, count: int) -> None:
        """Offer ``count`` sub-channels of an open device.

        :param primary: its channel, when the device itself asks, which then happens at once; or its name.
        """
        if isinstance(primary, str):
            channel = self.device(primary).channels[0]
            self._defer(lambda: self._offer_subchannels(channel, count))
        else:
            self._offer_subchannels(primary, count)

    def _check_name(self, spec: SlotSpec) -> None:
        if any(device.name == spec.name for device in self.devices):
            raise ValueError(f"two devices of the VM are called {spec.name!r}")

    def _offer(self, spec: SlotSpec) -> None:
        self._offer_if_due(self._add(spec))

    def _offer_if_due(self, device: OfferedDevice) -> None:
        channel = device.channels[0]
        if self.state is ConnectionState.OFFERED and channel.can(ChannelEvent.OFFER) and self._is_due(device):
            channel.step(ChannelEvent.OFFER)

    def _is_due(self, device: OfferedDevice) -> bool:
        return device.spec.offered_at <= self.bus.machine.clock.now

    def _repeat_offer(self, device: OfferedDevice) -> None:
        for channel in device.channels:
            if channel.state in (ChannelState.OFFERED, ChannelState.OPENING, ChannelState.OPEN):
                self.bus.post(offer_message(channel).pack())

    def _rescind(self, device: OfferedDevice) -> None:
        for channel in reversed(device.channels):
            if channel.can(ChannelEvent.RESCIND):
                channel.step(ChannelEvent.RESCIND)
        self._drop_removed(device)

    def _reoffer(self, device: OfferedDevice, at_once: bool) -> None:
        device.successor = None if at_once else device.spec
        self._rescind(device)
        if at_once:
            self._offer(device.spec)

    def _reorder(self, first: list[OfferedDevice]) -> None:
        named = [device for device in first if device in self.devices]
        self.devices = named + [device for device in self.devices if device not in named]

    def _offer_subchannels(self, primary: ServerChannel, count: int) -> None:
        device = primary.device
        if (self.bus.version or 0) < abi.VERSION_WIN8:
            self.bus.record("tolerated", f"{device.name}: sub-channels do not exist before version 2.4; none offered")
            return
        if not primary.is_open:
            self.bus.record("tolerated", f"{device.name}: sub-channels of a channel that is not open; none offered")
            return
        first = 1 + max(channel.offer.sub_channel_index for channel in device.channels)
        room = self.numbers.room
        if count > room:
            self.bus.record("refused", f"{device.name}: {count} sub-channels; {room} of {MAX_CHANNELS} relids are free")
        for index in range(first, first + min(count, room)):
            channel = ServerChannel(self, device, replace(primary.offer, sub_channel_index=index), primary)
            device.channels.append(channel)
            channel.step(ChannelEvent.OFFER)

    def _drop_removed(self, device: OfferedDevice) -> None:
        device.channels = [
            channel
            for channel in device.channels
            if channel.state is not ChannelState.REMOVED
            and not (channel.offer.sub_channel_index and channel.state is ChannelState.UNOFFERED)
        ]
        if not device.channels and device in self.devices:
            self.devices.remove(device)
            if device.successor is not None:
                self._offer(device.successor)

    def status(self) -> tuple[DeviceStatus, ...]:
        """Return what the report says of each device, in the order of the offers."""
        return tuple(
            DeviceStatus(
                device.name,
                device.spec.class_guid,
                device.spec.instance_guid,
                device.channels[0].relid,
                device.modelled,
                device.owner,
                device.channels[0].opens,
                device.channels[0].state.value,
                device.protocol,
            )
            for device in self.devices
        )


def _text(version: int) -> str:
    return f"version {version >> 16}.{version & 0xFFFF}"
