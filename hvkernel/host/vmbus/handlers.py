"""What the server does for each channel message of the guest, INITIATE_CONTACT apart.

Each method answers where the message has an answer; a step that the state tables do not have is raised on, for the
server to record.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.host import STATUS_UNSUCCESSFUL
from hvkernel.host.vmbus.contact import Feature
from hvkernel.host.vmbus.messages import BadMessage, header
from hvkernel.host.vmbus.offers import EventTarget
from hvkernel.host.vmbus.steps import RemoteProtocolError
from hvkernel.host.vmbus.tables import ChannelEvent, ConnectionEvent

if TYPE_CHECKING:
    from hvkernel.host.vmbus.channel import ServerChannel
    from hvkernel.host.vmbus.server import VmbusServer

__all__ = ["HANDLERS", "Handlers"]

STATUS_CONNECTION_REFUSED: Final = 0xC000_0236
"""status of a TL_CONNECT_RESULT (OpenVMM: protocol.rs, STATUS_CONNECTION_REFUSED)."""

HANDLERS: Final[Mapping[Type, str]] = MappingProxyType(
    {
        Type.CHANNELMSG_REQUESTOFFERS: "on_request_offers",
        Type.CHANNELMSG_OPENCHANNEL: "on_open_channel",
        Type.CHANNELMSG_CLOSECHANNEL: "on_close_channel",
        Type.CHANNELMSG_GPADL_HEADER: "on_gpadl_header",
        Type.CHANNELMSG_GPADL_BODY: "on_gpadl_body",
        Type.CHANNELMSG_GPADL_TEARDOWN: "on_gpadl_teardown",
        Type.CHANNELMSG_RELID_RELEASED: "on_relid_released",
        Type.CHANNELMSG_UNLOAD: "on_unload",
        Type.CHANNELMSG_TL_CONNECT_REQUEST: "on_tl_connect_request",
        Type.CHANNELMSG_MODIFYCHANNEL: "on_modify_channel",
    }
)
"""Method for each message of the guest but INITIATE_CONTACT, whose answer depends on the connection it came by."""

_SIGNAL_PARAMETERS: Final = struct.Struct("<IHH")
"""connection_id, event_flag, flags behind OPENCHANNEL (OpenVMM: protocol.rs, OpenChannel2)."""


class Handlers:
    """The methods that :data:`HANDLERS` names; each takes the decoded message, its bytes and the VP that sent it."""

    __slots__ = ("_server",)

    def __init__(self, server: VmbusServer) -> None:
        self._server = server

    def _channel(self, relid: int, name: str) -> ServerChannel:
        channel = self._server.by_relid.get(relid)
        if channel is None:
            raise BadMessage(f"{name} for relid {relid}, which is not offered")
        return channel

    def on_request_offers(self, message: abi.VmbusChannelMessageHeader, payload: bytes, vp: int) -> None:
        """REQUESTOFFERS: all offers, then ALLOFFERS_DELIVERED; once in a connection."""
        self._server.step(ConnectionEvent.REQUEST_OFFERS)

    def on_unload(self, message: abi.VmbusChannelMessageHeader, payload: bytes, vp: int) -> None:
        """UNLOAD: everything ends, then UNLOAD_RESPONSE."""
        self._server.step(ConnectionEvent.UNLOAD)

    def on_gpadl_header(self, message: abi.VmbusChannelGpadlHeader, payload: bytes, vp: int) -> None:
        """GPADL_HEADER: GPADL_CREATED once the last page number is there."""
        if message.child_relid not in self._server.by_relid:
            self._server.gpadls.refuse(message, payload)
        channel = self._channel(message.child_relid, "GPADL_HEADER")
        self._server.gpadls.header(message, payload, vp, used=not channel.is_rescinded)

    def on_gpadl_body(self, message: abi.VmbusChannelGpadlBody, payload: bytes, vp: int) -> None:
        """GPADL_BODY: more page numbers; it names no channel."""
        self._server.gpadls.body(message, payload)

    def on_gpadl_teardown(self, message: abi.VmbusChannelGpadlTeardown, payload: bytes, vp: int) -> None:
        """GPADL_TEARDOWN: GPADL_TORNDOWN when the host has let go of the pages."""
        self._channel(message.child_relid, "GPADL_TEARDOWN")
        self._server.gpadls.teardown(message.child_relid, message.gpadl)

    def on_open_channel(self, message: abi.VmbusChannelOpenChannel, payload: bytes, vp: int) -> None:
        """OPENCHANNEL: OPENCHANNEL_RESULT."""
        try:
            channel = self._channel(message.child_relid, "OPENCHANNEL")
            channel.open(message, self._event_target(message, payload))
        except (BadMessage, RemoteProtocolError):
            # *unspecified*: OpenVMM drops these without an answer, which leaves the guest waiting for ever.
            self._server.bus.post(
                abi.VmbusChannelOpenResult(
                    header(Type.CHANNELMSG_OPENCHANNEL_RESULT),
                    message.child_relid,
                    message.openid,
                    STATUS_UNSUCCESSFUL,
                ).pack()
            )
            raise

    def _event_target(self, message: abi.VmbusChannelOpenChannel, payload: bytes) -> EventTarget | None:
        """Connection and event flag that the guest chose, ``None`` without the features that let it."""
        features = self._server.features
        if not features & (Feature.GUEST_SPECIFIED_SIGNAL_PARAMETERS | Feature.CHANNEL_INTERRUPT_REDIRECTION):
            return None
        least = message.SIZE + _SIGNAL_PARAMETERS.size
        if len(payload) < least:
            raise BadMessage(
                f"OPENCHANNEL of {len(payload)} bytes; with the features of this connection at least {least}"
            )
        connection, flag, _ = _SIGNAL_PARAMETERS.unpack_from(payload, message.SIZE)
        return EventTarget(connection, flag) if features & Feature.GUEST_SPECIFIED_SIGNAL_PARAMETERS else None

    def on_close_channel(self, message: abi.VmbusChannelCloseChannel, payload: bytes, vp: int) -> None:
        """CLOSECHANNEL has no answer; a close of the primary channel takes the sub-channels away."""
        channel = self._channel(message.child_relid, "CLOSECHANNEL")
        channel.step(ChannelEvent.CLOSECHANNEL)
        if channel.primary is channel:
            for sub in channel.device.channels[1:]:
                if sub.can(ChannelEvent.RESCIND):
                    sub.step(ChannelEvent.RESCIND)

    def on_relid_released(self, message: abi.VmbusChannelRelidReleased, payload: bytes, vp: int) -> None:
        """RELID_RELEASED has no answer: the number is free again."""
        channel = self._channel(message.child_relid, "RELID_RELEASED")
        channel.step(ChannelEvent.RELID_RELEASED)
        self._server.drop_removed(channel.device)

    def on_modify_channel(self, message: abi.VmbusChannelModifychannel, payload: bytes, vp: int) -> None:
        """MODIFYCHANNEL: MODIFYCHANNEL_RESPONSE from 5.3 on."""
        server = self._server
        try:
            channel = self._channel(message.child_relid, "MODIFYCHANNEL")
            if not server.is_vp(message.target_vp):
                raise RemoteProtocolError(f"MODIFYCHANNEL of {channel} to VP {message.target_vp}, which does not exist")
            channel.modify(message.target_vp)
        except (BadMessage, RemoteProtocolError):
            server.modify_response(message.child_relid, STATUS_UNSUCCESSFUL)
            raise

    def on_tl_connect_request(self, message: abi.VmbusChannelTlConnectRequest, payload: bytes, vp: int) -> None:
        """TL_CONNECT_REQUEST: no service listens on this host; from 4.1 on the guest is told by TL_CONNECT_RESULT.

        OpenVMM answers the same (channels.rs: send_tl_connect_result); Linux ignores the answer.
        """
        bus = self._server.bus
        bus.record("refused", f"TL_CONNECT_REQUEST to service {message.host_service_id}: no service listens")
        if (bus.version or 0) >= abi.VERSION_WIN10_V4_1:
            guids = bytes(message.guest_endpoint_id) + bytes(message.host_service_id)
            status = STATUS_CONNECTION_REFUSED.to_bytes(4, "little")
            bus.post(header(Type.CHANNELMSG_TL_CONNECT_RESULT).pack() + guids + status)
