"""The device."""

from __future__ import annotations

from zlib import crc32

from hvkernel.abi.ring import VmbusPacketType
from hvkernel.api.host import Channel, DeviceSlot, Offer, Packet
from hvkernel_lantern.wire import FLASH, LanternMessage

HV_HYP_PAGE_SIZE = 4096


class LanternDevice:
    """Reads a buffer of the guest, and can flash."""

    protocol: str | None = None

    def __init__(self, slot: DeviceSlot) -> None:
        self.slot = slot
        self.channel: Channel | None = None

    def offer(self, offer: Offer) -> Offer:
        return offer

    def on_open(self, channel: Channel) -> int:
        self.protocol = "1.0"
        self.channel = channel
        return 0

    def flash(self, times: int) -> None:
        """Tell the guest so often that the light went on."""
        assert self.channel is not None
        for _ in range(times):
            self.channel.send_packet(VmbusPacketType.VM_PKT_DATA_INBAND, FLASH)

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        message = LanternMessage.unpack(packet.payload[: LanternMessage.SIZE])
        buffer = channel.gpadl(message.handle)
        data = b"" if buffer is None else buffer.read()[message.first * HV_HYP_PAGE_SIZE :]
        checksum = crc32(data[: message.pages * HV_HYP_PAGE_SIZE])
        channel.complete(packet.trans_id, message.replace(checksum=checksum).pack())

    def on_close(self, channel: Channel) -> None:
        self.protocol = None
        self.channel = None
