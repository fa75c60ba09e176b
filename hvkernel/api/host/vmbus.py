"""What a device on the host's side of the VMBus sees: its slot, its channels, their packets and guest buffers.

A virtualisation service provider (VSP) is any object with the methods of :class:`Device`. The host makes one per
offered instance, opens it when the guest opens its primary channel, and hands it each packet that the guest wrote::

    class Echo:
        def __init__(self, slot: DeviceSlot) -> None:
            self.slot = slot

        def offer(self, offer: Offer) -> Offer:
            return replace(offer, monitored=True)

        def on_open(self, channel: Channel) -> int:
            return 0

        def on_packet(self, channel: Channel, packet: Packet) -> None:
            channel.complete(packet.trans_id, packet.payload)

        def on_close(self, channel: Channel) -> None: ...

Everything here runs in host tasks of the machine: no method may read a clock, start a thread or sleep other than
through the slot. Sources are given where a number or a rule comes from a header; the split into classes is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from hvkernel.abi.wire import Guid

__all__ = [
    "STATUS_SUCCESS",
    "STATUS_UNSUCCESSFUL",
    "Channel",
    "Device",
    "DeviceFactory",
    "DeviceRegistry",
    "DeviceSlot",
    "GuestBuffer",
    "Offer",
    "Packet",
    "Services",
    "Timer",
]

STATUS_SUCCESS: Final = 0
"""NT status of an accepted open, GPADL or modification (include/linux/hyperv.h: status fields of the replies)."""

STATUS_UNSUCCESSFUL: Final = 0xC000_0001
"""NT status with which this host refuses an open, a GPADL or a modification (NTSTATUS, winnt.h).

*unspecified*: the guest looks at zero or not zero only. OpenVMM answers 0x8000ffff instead."""


class GuestBuffer(Protocol):
    """Guest memory that one packet or GPADL names: any number of GPA ranges, seen as one run of bytes.

    Reaching it goes through the host's door of the machine, so a page that the guest took back, or never shared in a
    confidential VM, faults and is recorded.
    """

    @property
    def byte_count(self) -> int:
        """Bytes in all ranges together."""
        ...

    @property
    def ranges(self) -> Sequence[tuple[int, int, tuple[int, ...]]]:
        """``(byte_count, byte_offset, pfns)`` of each range; page numbers are 4 KiB ones."""
        ...

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return ``size`` bytes (to the end when ``None``) from ``offset``.

        :raises ValueError: outside the buffer.
        :raises hvkernel.machine.Fault: a page is not reachable by the host.
        """
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset``; errors as for :meth:`read`."""
        ...

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield ``(gpa, length)`` of each piece that is contiguous in guest memory, in order."""
        ...

    def views(self, offset: int, size: int, *, writable: bool) -> AbstractContextManager[list[memoryview]]:
        """The same bytes without a copy: one memoryview per contiguous piece, for the length of a ``with`` block.

        :param writable: False asks for read access only. Errors as for :meth:`read`.
        """
        ...


@dataclass(slots=True)
class Packet:
    """One packet of the guest, checked and taken out of the ring. Not changed once made."""

    kind: int
    """``VmbusPacketType`` (include/linux/hyperv.h: enum vmbus_packet_type)."""
    flags: int
    """Bit 0: the guest asks for a completion."""
    trans_id: int
    """The guest's transaction id; a completion carries it back."""
    payload: bytes
    """The data after the descriptor, padded by the guest to a multiple of 8 bytes."""
    buffer: GuestBuffer | None = None
    """What a GPA-direct packet describes, else ``None``."""
    transfer_pageset: int | None = None
    """Page set of a transfer-page packet (netvsc), else ``None``."""
    transfer_ranges: tuple[tuple[int, int], ...] = ()
    """``(byte_count, byte_offset)`` of a transfer-page packet."""

    @property
    def completion_requested(self) -> bool:
        """Whether the guest waits for :meth:`Channel.complete`."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an offer says besides the identifiers that the server assigns (struct vmbus_channel_offer)."""

    if_type: Guid
    """Class of the device."""
    if_instance: Guid
    """Identity of this device in this VM."""
    chn_flags: int = 0
    """``VMBUS_CHANNEL_*`` server flags."""
    mmio_megabytes: int = 0
    """MMIO space that the device asks the guest for, in MiB."""
    user_defined: bytes = b""
    """Up to 120 bytes (116 for a pipe, after its mode); the rest is zero."""
    pipe_mode: int | None = None
    """``VMBUS_PIPE_TYPE_*`` when the channel is a named pipe, else ``None``."""
    sub_channel_index: int = 0
    """0 for the primary channel."""
    monitored: bool = False
    """Whether the guest may signal through the monitor page instead of a hypercall."""
    monitor_latency: int = 0
    """Time from the guest's trigger to the host's look at the ring, in 100 ns units (struct hv_monitor_page)."""


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> object:
        """Drop it; nothing happens when it already ran."""
        ...


class Channel(Protocol):
    """An open channel, seen from the host."""

    @property
    def relid(self) -> int:
        """Number of the offer in this connection (child_relid)."""
        ...

    @property
    def offer(self) -> Offer:
        """The offer that the guest opened."""
        ...

    @property
    def version(self) -> int:
        """VMBus protocol version of the connection, ``major << 16 | minor``."""
        ...

    @property
    def target_vp(self) -> int:
        """VP index that the host interrupts for this channel."""
        ...

    @property
    def user_data(self) -> bytes:
        """The 120 bytes of OPENCHANNEL's userdata."""
        ...

    @property
    def is_open(self) -> bool:
        """False once the guest closed it, released it, or it was rescinded."""
        ...

    @property
    def primary(self) -> Channel:
        """The primary channel of the device, itself when this is it."""
        ...

    @property
    def incoming_bytes(self) -> int:
        """Data bytes of the guest's ring (guest to host)."""
        ...

    @property
    def outgoing_bytes(self) -> int:
        """Data bytes of the host's ring (host to guest)."""
        ...

    def send_packet(self, kind: int, payload: bytes, trans_id: int = 0, flags: int = 0) -> None:
        """Write one packet to the guest, or queue it until the guest made room.

        :param kind: ``VmbusPacketType``.
        :param payload: padded with zeroes to 8 bytes.

        On a closed channel the packet is dropped and recorded.

        :raises ValueError: the packet is larger than the ring.
        """
        ...

    def send_transfer_pages(
        self, pageset: int, ranges: Sequence[tuple[int, int]], payload: bytes, trans_id: int = 0, flags: int = 0
    ) -> None:
        """Write a VM_PKT_DATA_USING_XFER_PAGES packet; ``ranges`` are ``(byte_count, byte_offset)``."""
        ...

    def complete(self, trans_id: int, payload: bytes = b"", flags: int = 0) -> None:
        """Write the completion (VM_PKT_COMP) of the guest's packet ``trans_id``."""
        ...

    def gpadl(self, handle: int) -> GuestBuffer | None:
        """Return the memory of a GPADL that the guest made for this device, or ``None``."""
        ...

    def offer_subchannels(self, count: int) -> None:
        """Offer ``count`` more channels of this device; each one's open comes to :meth:`Device.on_open`.

        *unspecified*: numbering goes on from the highest sub channel index in use.
        """
        ...


class Device(Protocol):
    """One offered device. The methods are called in host tasks, one at a time per channel."""

    @property
    def protocol(self) -> str | None:
        """The version that driver and device agreed on, as the field writes it (``"6.2"``); ``None`` before."""
        ...

    def offer(self, offer: Offer) -> Offer:
        """Return the offer to make: ``offer`` or a changed copy of it (same class and instance)."""
        ...

    def on_open(self, channel: Channel) -> int:
        """Accept or refuse an open: 0, or the NT status for OPENCHANNEL_RESULT. Packets may be sent from here on."""
        ...

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        """Handle one packet of the guest."""
        ...

    def on_close(self, channel: Channel) -> None:
        """Drop what belongs to the channel; its ring is already out of reach."""
        ...


class Services(Protocol):
    """What a device may ask of the host at any time."""

    @property
    def now(self) -> int:
        """Virtual time in 100 ns units."""
        ...

    @property
    def rng(self) -> random.Random:
        """Random numbers seeded from the machine's seed and the device's name."""
        ...

    def after(self, delay: int, call: Callable[[], None]) -> Timer:
        """Run ``call`` in a host task once ``delay`` units of 100 ns have passed."""
        ...

    def record(self, kind: str, text: str) -> None:
        """Add a finding of the host: something that the guest did wrong, or that was tolerated."""
        ...

    def rescind(self) -> None:
        """Take the device away from the guest (RESCIND_CHANNELOFFER of all its channels)."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceSlot:
    """The place of a device in a machine: its identity, its parameters, and the host's services."""

    class_guid: Guid
    instance_guid: Guid
    name: str
    """Short name in reports, unique in the VM (``scsi0``)."""
    services: Services
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What the host profile and the VM file say of this device: protocol versions, disks, limits."""


DeviceFactory = Callable[[DeviceSlot], Device]
"""Makes the device of one slot; called once per machine and instance."""


@runtime_checkable
class DeviceRegistry(Protocol):
    """The host's table of device classes, filled by the hook ``hv_register_devices``."""

    def register(self, class_guid: Guid, factory: DeviceFactory, *, owner: str = "") -> None:
        """Declare that ``factory`` makes the devices of a class.

        :param owner: kernel module name of the plugin, for the report.
        :raises ValueError: another factory has that class already.
        """
        ...
