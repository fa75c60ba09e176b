"""The device."""

from __future__ import annotations

from zlib import crc32

from hvkernel.api.host import Channel, DeviceSlot, Offer, Packet
from hvkernel_lantern.wire import LanternMessage

HV_HYP_PAGE_SIZE = 4096


class LanternDevice:
    """Reads a buffer of the guest."""

    protocol: str | None = None

    def __init__(self, slot: DeviceSlot) -> None:
        self.slot = slot

    def offer(self, offer: Offer) -> Offer:
        return offer

    def on_open(self, channel: Channel) -> int:
        self.protocol = "1.0"
        return 0

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        message = LanternMessage.unpack(packet.payload[: LanternMessage.SIZE])
        buffer = channel.gpadl(message.handle)
        data = b"" if buffer is None else buffer.read()[: message.pages * HV_HYP_PAGE_SIZE]
        channel.complete(packet.trans_id, message.replace(checksum=crc32(data)).pack())

    def on_close(self, channel: Channel) -> None:
        self.protocol = None
