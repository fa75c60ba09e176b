"""The devices that a VM offers, and the table of classes that plugins fill."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hvkernel.abi import vmbus as abi
from hvkernel.abi.guids import guid_name
from hvkernel.abi.wire import Guid
from hvkernel.api.host import (
    STATUS_SUCCESS,
    STATUS_UNSUCCESSFUL,
    Channel,
    Device,
    DeviceFactory,
    DeviceSlot,
    Offer,
    Packet,
    Timer,
)
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from uuid import UUID

    from hvkernel.host.vmbus.bus import Bus
    from hvkernel.host.vmbus.channel import ServerChannel

__all__ = ["DeviceStatus", "DeviceTable", "OfferedDevice", "ProfileDevice", "SlotSpec", "slots_of"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One device of a VM, as the profile and the VM file describe it."""

    name: str
    """Unique in the VM: ``scsi0``."""
    class_guid: Guid
    instance_guid: Guid
    chn_flags: int = 0
    mmio_megabytes: int = 0
    pipe_mode: int | None = None
    user_defined: bytes = b""
    monitored: bool = False
    monitor_latency: int = 0
    """In 100 ns units."""
    subchannels: int = 0
    """What a device without a plugin offers at its open; one with a plugin finds the number in its parameters."""
    offered_at: int = 0
    """Virtual time in 100 ns units before which it is not offered."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Handed to the device: protocol versions, disks, limits."""


class ProfileDevice(Protocol):
    """One offer of a host profile (``hvkernel.config``: Device)."""

    @property
    def name(self) -> str: ...
    @property
    def class_guid(self) -> UUID: ...
    @property
    def instance_guid(self) -> UUID: ...
    @property
    def protocols(self) -> tuple[int, ...]: ...
    @property
    def mmio_megabytes(self) -> int: ...
    @property
    def pipe(self) -> bool: ...
    @property
    def flags(self) -> int | None: ...
    @property
    def user_defined(self) -> bytes: ...
    @property
    def monitored(self) -> bool: ...
    @property
    def monitor_latency(self) -> int: ...
    @property
    def subchannels(self) -> int: ...
    @property
    def offered_at(self) -> int: ...


def slots_of(
    devices: Iterable[ProfileDevice], parameters: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> tuple[SlotSpec, ...]:
    """Turn a profile's devices into slots.

    :param parameters: per device name, what the VM adds (``{"scsi0": {"units": ...}}``). Where the profile names
        protocol versions, the device gets them as ``protocols``: texts like ``"5.1"``.
    :raises ValueError: parameters for a device that the profile does not have.

    Offer flags: a pipe says so, and a channel is enumerated (OpenVMM: channels.rs, From<OfferParams>). *unspecified*
    per class; a device that wants others changes its offer.
    """
    slots = []
    left = dict(parameters)
    for device in devices:
        flags = device.flags
        if flags is None:
            flags = abi.VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE
            flags |= abi.VMBUS_CHANNEL_NAMED_PIPE_MODE if device.pipe else 0
        given: dict[str, Any] = {}
        if device.protocols:
            given["protocols"] = tuple(f"{v >> 16}.{v & 0xFFFF}" for v in device.protocols)
        if device.subchannels:
            given["subchannels"] = device.subchannels
        slots.append(
            SlotSpec(
                name=device.name,
                class_guid=Guid(device.class_guid.bytes_le),
                instance_guid=Guid(device.instance_guid.bytes_le),
                chn_flags=flags,
                mmio_megabytes=device.mmio_megabytes,
                pipe_mode=abi.VMBUS_PIPE_TYPE_MESSAGE if device.pipe else None,
                user_defined=device.user_defined,
                monitored=device.monitored,
                monitor_latency=device.monitor_latency,
                subchannels=device.subchannels,
                offered_at=device.offered_at,
                parameters=MappingProxyType({**given, **left.pop(device.name, {})}),
            )
        )
    if left:
        names = ", ".join(slot.name for slot in slots)
        raise ValueError(f"the VM has no device called {next(iter(left))!r}; it has {names}")
    return tuple(slots)


class DeviceTable:
    """Device classes and who makes their devices. Implements :class:`hvkernel.api.host.DeviceRegistry`."""

    __slots__ = ("_makers",)

    def __init__(self) -> None:
        self._makers: dict[Guid, tuple[DeviceFactory, str]] = {}

    def register(self, class_guid: Guid, factory: DeviceFactory, *, owner: str = "") -> None:
        """Declare the maker of a class; see the Protocol."""
        other = self._makers.get(class_guid)
        if other is not None:
            raise ValueError(
                f"device class {class_guid} is already made by {other[1] or 'another plugin'}; "
                f"{owner or 'this plugin'} cannot make it too"
            )
        self._makers[class_guid] = (factory, owner)

    def maker(self, class_guid: Guid) -> tuple[DeviceFactory, str] | None:
        """Return the maker of a class and its plugin, ``None`` for a class that no plugin models."""
        return self._makers.get(class_guid)


class _Services:
    """Implements :class:`hvkernel.api.host.Services` for one device."""

    __slots__ = ("_bus", "_name", "_rescind", "rng")

    def __init__(self, bus: Bus, name: str, rescind: Callable[[], None]) -> None:
        self._bus = bus
        self._name = name
        self._rescind = rescind
        self.rng: random.Random = bus.machine.rng(f"vmbus device {name}")

    @property
    def now(self) -> int:
        return self._bus.machine.clock.now

    def after(self, delay: int, call: Callable[[], None]) -> Timer:
        machine, name = self._bus.machine, f"vmbus {self._name}.timer"

        def due() -> None:
            machine.spawn(call, name=name, side="host")

        return machine.clock.at(machine.clock.now + delay, due)

    def record(self, kind: str, text: str) -> None:
        self._bus.record(kind, f"{self._name}: {text}")

    def rescind(self) -> None:
        self._rescind()


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


class OfferedDevice:
    """One device of the VM: its plugin's object if there is one, and its channels.

    A plugin that raises is recorded by name and the host goes on: an open that raises is refused.
    """

    __slots__ = ("_bus", "_device", "channels", "modelled", "name", "offer", "owner", "spec", "successor")

    def __init__(self, bus: Bus, spec: SlotSpec, table: DeviceTable, rescind: Callable[[OfferedDevice], None]) -> None:
        self._bus = bus
        self.spec = spec
        self.name = spec.name
        self.channels: list[ServerChannel] = []
        """The primary channel, then the sub-channels."""
        self.successor: SlotSpec | None = None
        """What comes in its place once the guest has let go of its relids."""
        self.offer = Offer(
            spec.class_guid,
            spec.instance_guid,
            chn_flags=spec.chn_flags,
            mmio_megabytes=spec.mmio_megabytes,
            user_defined=spec.user_defined,
            pipe_mode=spec.pipe_mode,
            monitored=spec.monitored,
            monitor_latency=spec.monitor_latency,
        )
        self._device: Device | None = None
        maker = table.maker(spec.class_guid)
        self.owner = maker[1] if maker else ""
        self.modelled = maker is not None
        if maker is None:
            return
        services = _Services(bus, spec.name, lambda: rescind(self))
        slot = DeviceSlot(spec.class_guid, spec.instance_guid, spec.name, services, spec.parameters)
        self._device = self._guard("its factory", None, maker[0], slot)
        if self._device is not None:
            offer = self._guard("offer()", self.offer, self._device.offer, self.offer)
            if (offer.if_type, offer.if_instance) != (spec.class_guid, spec.instance_guid):
                bus.record("plugin", f"{self.owner or self.name}: offer() changed the device's class or instance")
            else:
                self.offer = offer

    @property
    def title(self) -> str:
        """Name of the class, or its GUID."""
        return guid_name(self.spec.class_guid) or str(self.spec.class_guid)

    @property
    def device(self) -> Device | None:
        """What its plugin made; ``None`` for a class that no plugin models, and where the factory failed."""
        return self._device

    @property
    def protocol(self) -> str | None:
        """What driver and device agreed on, as the device says."""
        device = self._device
        return None if device is None else self._guard("protocol", None, lambda: device.protocol)

    def _guard(self, what: str, default: T, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except Exception as error:
            self._raised(what, error)
        return default

    def _raised(self, what: str, error: Exception) -> None:
        if isinstance(error, Fault):
            # The device followed what the guest told it into memory that it may not reach.
            self._bus.record("refused", f"{self.name}: {error}")
        else:
            text = f"{self.owner or self.name}: {what} of {self.name} raised {type(error).__name__}: {error}"
            self._bus.record("plugin", text)

    def status(self) -> DeviceStatus:
        """Return what the report says of it now."""
        first = self.channels[0]
        return DeviceStatus(
            self.name,
            self.spec.class_guid,
            self.spec.instance_guid,
            first.relid,
            self.modelled,
            self.owner,
            first.opens,
            first.state.value,
            self.protocol,
        )

    def change(self, offer: Offer) -> None:
        """Let the next offer of the device be this one."""
        self.offer = offer
        for channel in self.channels:
            if not channel.offer.sub_channel_index:
                channel.offer = offer

    def open(self, channel: Channel) -> int:
        """Ask the device; a class without a plugin opens and then answers nothing."""
        if self._device is None:
            return STATUS_SUCCESS if not self.modelled else STATUS_UNSUCCESSFUL
        return self._guard("on_open()", STATUS_UNSUCCESSFUL, self._device.on_open, channel)

    def opened(self, channel: Channel) -> None:
        """The guest has been told. A class without a plugin offers its sub-channels now."""
        if not self.modelled and channel.primary is channel and self.spec.subchannels:
            channel.offer_subchannels(self.spec.subchannels)

    def packet(self, channel: Channel, packet: Packet) -> None:
        """Hand one packet to the device."""
        if self._device is not None:
            try:
                self._device.on_packet(channel, packet)
            except Exception as error:
                self._raised("on_packet()", error)

    def close(self, channel: Channel) -> None:
        """Tell the device that a channel is closed."""
        if self._device is not None:
            self._guard("on_close()", None, self._device.on_close, channel)
