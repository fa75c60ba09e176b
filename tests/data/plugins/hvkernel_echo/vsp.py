"""The device."""

from __future__ import annotations

from hvkernel.api.host import Channel, DeviceSlot, Offer, Packet
from hvkernel_echo.wire import EchoMessage


class EchoDevice:
    """Doubles what it is asked."""

    protocol: str | None = None

    def __init__(self, slot: DeviceSlot) -> None:
        self.slot = slot

    def offer(self, offer: Offer) -> Offer:
        return offer

    def on_open(self, channel: Channel) -> int:
        return 0

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        message = EchoMessage.unpack(packet.payload)
        self.protocol = "1.0"
        channel.complete(packet.trans_id, message.replace(answered=2 * message.asked).pack())

    def on_close(self, channel: Channel) -> None:
        self.protocol = None
