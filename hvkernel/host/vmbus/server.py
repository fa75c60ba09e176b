"""The VMBus server: it takes the guest's channel messages, one at a time, in a host task of its own.

A guest posts to connection 1, or from protocol 5.0 on starts at connection 4 (drivers/hv/connection.c:
vmbus_negotiate_version). Every message is checked against the table of messages and the state tables; what a guest does
wrong is recorded, and answered where the message has an answer that says no.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.tlfs import HV_STATUS_INSUFFICIENT_BUFFERS, HV_STATUS_SUCCESS, HV_SYNIC_SINT_COUNT
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.host import Offer
from hvkernel.host.vmbus.bus import CHANNEL_MESSAGE, Bus
from hvkernel.host.vmbus.channel import ServerChannel
from hvkernel.host.vmbus.contact import Answer, Contact, judge, read_contact, version_response, version_text
from hvkernel.host.vmbus.devices import DeviceStatus, DeviceTable, OfferedDevice, SlotSpec
from hvkernel.host.vmbus.gpadl import GpadlTable
from hvkernel.host.vmbus.handlers import HANDLERS, Handlers
from hvkernel.host.vmbus.interrupts import InterruptPage
from hvkernel.host.vmbus.messages import BadMessage, header, parse_message
from hvkernel.host.vmbus.monitor import Monitor
from hvkernel.host.vmbus.offers import (
    MAX_CHANNELS,
    MAX_MONITORS,
    EventTarget,
    Numbers,
    connection_id,
    offer_message,
    user_defined,
)
from hvkernel.host.vmbus.steps import RemoteProtocolError, next_row
from hvkernel.host.vmbus.tables import CONNECTION, ChannelEvent, ChannelState, ConnectionEvent, ConnectionState
from hvkernel.host.vmbus.throttle import Throttle

if TYPE_CHECKING:
    from hvkernel.host.vmbus.hypervisor import Accepts, Hypervisor
    from hvkernel.host.vmbus.throttle import Limits
    from hvkernel.machine import Task

__all__ = ["VmbusServer"]

MESSAGE_BUFFERS: Final = 16
"""Messages of the guest that may wait at a port (TLFS, "Guest Message Buffers")."""

MIB: Final = 1 << 20


class VmbusServer:
    """The host's side of the bus.

    :param host: the hypervisor.
    :param accepts: protocol versions, connection 4 and the GPADL limit of the host profile.
    :param slots: the devices of the VM in the order of the offers.
    :param table: who makes the devices.
    :param message_buffers: how many of the guest's messages may wait; more get HV_STATUS_INSUFFICIENT_BUFFERS, which
        the kernel retries (drivers/hv/connection.c: vmbus_post_msg). The hypervisor has sixteen for
        each port (TLFS, "Guest Message Buffers"); both message connections lead to one queue here.
    :param throttle: how many unnecessary signals the host puts up with; ``None`` for any number.
    """

    __slots__ = (
        "_accepts",
        "_answer",
        "_buffers",
        "_classes",
        "_contact",
        "_handlers",
        "_ignored",
        "_inbox",
        "_kicked",
        "_monitors",
        "_task",
        "_vps",
        "bus",
        "by_relid",
        "declined",
        "devices",
        "features",
        "gpadls",
        "interrupts",
        "monitor",
        "numbers",
        "requests",
        "state",
        "throttle",
    )

    def __init__(
        self,
        host: Hypervisor,
        accepts: Accepts,
        slots: Sequence[SlotSpec],
        table: DeviceTable,
        *,
        message_buffers: int = MESSAGE_BUFFERS,
        throttle: Limits | None = None,
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
        self.throttle = Throttle(self.bus, throttle)
        self.requests: list[int] = []
        """Versions that the guest asked for, in order."""
        self._ignored: tuple[Type, ...] = ()
        self.declined = 0
        """How many messages a host without connection 4 turned away there: what a guest that knows 5.0 tries first."""
        self.features = 0
        """Feature flags that the connection has (version 6.0)."""
        self._handlers = Handlers(self)
        self._vps = frozenset(vp.vp_index for vp in host.machine.vps)
        self._contact: Contact | None = None
        self._answer = Answer(False)
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
        else:
            ports.decline(abi.VMBUS_MESSAGE_CONNECTION_ID_4, self._on_declined)

    def _on_declined(self) -> None:
        self.declined += 1

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
            number, message = parse_message(payload, self.bus.version, max(self._accepts.versions, default=0))
            if number in self._ignored:
                return
            if isinstance(message, abi.VmbusChannelInitiateContact):
                self._initiate_contact(message, payload, connection)
            else:
                getattr(self._handlers, HANDLERS[number])(message, payload, vp)
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
        return vp in self._vps

    def _initiate_contact(self, message: abi.VmbusChannelInitiateContact, payload: bytes, connection: int) -> None:
        contact = read_contact(message, payload, connection)
        text = f"INITIATE_CONTACT for {version_text(contact.version)}"
        self.requests.append(contact.version)
        if contact.vtl:
            # OpenVMM hands it to the server of that VTL (channels.rs: initiate_contact); here is none.
            raise BadMessage(f"{text} and VTL {contact.vtl}, where no server listens")
        if contact.version >= abi.VERSION_WIN10_V5 and connection != abi.VMBUS_MESSAGE_CONNECTION_ID_4:
            self.bus.record("tolerated", f"{text} on connection {connection}, not 4")
        if contact.sint != abi.VMBUS_MESSAGE_SINT:
            # The answer goes where it was asked from, and the connection stays as it is (initiate_contact).
            self.bus.record("refused", f"{text}: msg_sint {contact.sint} is not {abi.VMBUS_MESSAGE_SINT}")
            if self.is_vp(contact.vp) and contact.sint < HV_SYNIC_SINT_COUNT:
                self.bus.post(version_response(contact.version, Answer(False)), vp=contact.vp, sint=contact.sint)
            return
        # *unspecified*: OpenVMM sends a refusal to the VP of the connection before. A crash kernel, which runs on
        # another VP and goes down the versions, would wait for it in vain.
        if self.is_vp(contact.vp):
            self.bus.message_vp = contact.vp
        self._contact = contact
        self._answer, why = judge(contact, self._accepts, self.is_vp, self.bus.is_ram)
        if why:
            self.bus.record("refused", f"{text}: {why}")
        accepted = self._answer.accepted
        self.step(ConnectionEvent.CONTACT_ACCEPTED if accepted else ConnectionEvent.CONTACT_REFUSED)

    def _do_note_reconnect(self) -> None:
        self.bus.record("tolerated", "INITIATE_CONTACT on a live connection; the old one is dropped")

    def _do_connect(self) -> None:
        contact, vp = self._contact, self.bus.message_vp
        assert contact is not None
        self.bus.version = contact.version
        self.features = self._answer.features
        self.monitor.connect(*contact.monitor_pages, vp)
        if contact.interrupt_page:
            self.interrupts.connect(contact.interrupt_page, vp)

    def _do_version_response(self) -> None:
        assert self._contact is not None
        self.bus.post(version_response(self._contact.version, self._answer))

    def _do_disconnect(self) -> None:
        for device in list(self.devices):
            for channel in device.channels:
                channel.step(ChannelEvent.DISCONNECT)
            self.drop_removed(device)
        self.gpadls.forget_refused()
        self.monitor.disconnect()
        self.interrupts.disconnect()
        self.bus.version = None
        self.features = 0

    def _do_unload_response(self) -> None:
        self.bus.post(header(Type.CHANNELMSG_UNLOAD_RESPONSE).pack())

    def _do_offer_all(self) -> None:
        for device in list(self.devices):
            self._offer_if_due(device)

    def _do_alloffers_delivered(self) -> None:
        self.bus.post(header(Type.CHANNELMSG_ALLOFFERS_DELIVERED).pack())

    # what channels need ----------------------------------------------------------------------------------------

    def modify_response(self, relid: int, status: int) -> None:
        """Answer MODIFYCHANNEL, which has an answer since 5.3 (drivers/hv/channel.c: vmbus_send_modifychannel)."""
        if (self.bus.version or 0) >= abi.VERSION_WIN10_V5_3:
            self.bus.post(
                abi.VmbusChannelModifychannelResponse(
                    header(Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE), relid, status
                ).pack()
            )

    def assign(self, channel: ServerChannel) -> None:
        """Give a channel its numbers for this connection."""
        relid = self.numbers.take()
        if relid is None:
            raise ValueError(f"{channel.device.name}: all {MAX_CHANNELS} relids are in use")
        channel.relid = relid
        channel.events = EventTarget(connection_id(relid), relid)
        channel.monitor_id = self._monitors.take() if channel.offer.monitored and self.monitor.usable else None
        self.by_relid[relid] = channel

    def free(self, channel: ServerChannel) -> None:
        """Take a channel's numbers back."""
        del self.by_relid[channel.relid]
        self.numbers.free(channel.relid)
        if channel.monitor_id is not None:
            self._monitors.free(channel.monitor_id)
        channel.relid, channel.monitor_id = 0, None

    def connect_event(self, channel: ServerChannel, connection: int) -> None:
        """Let the guest signal a channel that opens.

        :raises ValueError: the connection is taken, or no connection id.
        """
        self.bus.host.ports.connect_event(connection, channel.signalled)

    def disconnect_event(self, connection: int) -> None:
        """End that."""
        self.bus.host.ports.disconnect(connection)

    def signal_guest(self, channel: ServerChannel) -> bool:
        """Interrupt the guest for a channel: its event flag on its VP, or before WS2012 the interrupt page on VP 0."""
        if (self.bus.version or 0) >= abi.VERSION_WIN8:
            return self.bus.host.synic.signal_event(channel.target_vp, abi.VMBUS_MESSAGE_SINT, channel.event_flag)
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
        """Take a device away: RESCIND_CHANNELOFFER of all its channels, sub-channels first.

        One that waits to be offered again does not come back.
        """
        gone = self.device(device) if isinstance(device, str) else device
        self._defer(lambda: self._rescind(gone, None))

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

    def ignore(self, *numbers: Type) -> None:
        """Be a host that takes these messages of the guest and does nothing about them; ``ignore()`` ends that."""
        self._ignored = numbers

    def _check_name(self, spec: SlotSpec) -> None:
        if any(device.name == spec.name for device in self.devices):
            raise ValueError(f"two devices of the VM are called {spec.name!r}")

    def _offer(self, spec: SlotSpec) -> None:
        self._offer_if_due(self._add(spec))

    def _offer_if_due(self, device: OfferedDevice) -> None:
        channel = device.channels[0]
        if self.state is not ConnectionState.OFFERED or not channel.can(ChannelEvent.OFFER):
            return
        if device.spec.offered_at > self.bus.machine.clock.now:
            return
        if not self.numbers.room:
            self.bus.record("refused", f"{device.name} is not offered: all {MAX_CHANNELS} relids are in use")
            return
        channel.step(ChannelEvent.OFFER)

    def _repeat_offer(self, device: OfferedDevice) -> None:
        for channel in device.channels:
            if channel.state in (ChannelState.OFFERED, ChannelState.OPENING, ChannelState.OPEN):
                self.bus.post(offer_message(channel).pack())

    def _rescind(self, device: OfferedDevice, successor: SlotSpec | None) -> None:
        device.successor = successor
        for channel in reversed(device.channels):
            if channel.can(ChannelEvent.RESCIND):
                channel.step(ChannelEvent.RESCIND)
        self.drop_removed(device)

    def _reoffer(self, device: OfferedDevice, at_once: bool) -> None:
        self._rescind(device, None if at_once else device.spec)
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

    def drop_removed(self, device: OfferedDevice) -> None:
        """Forget the channels of a device that are gone, and the device with its last one."""
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
        return tuple(device.status() for device in self.devices)
