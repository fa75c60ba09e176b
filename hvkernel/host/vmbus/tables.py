# The server's three state machines, whole.
#
# Rule 1: every transition of a connection, a channel and a GPADL on the host's side is a row here.
# Rule 2: this file does nothing else. Effects are names; each is a method ``_do_<name>`` of the object that steps.
# Outside the tables, on purpose:
#   * which versions are accepted is profile data: the event says accepted or refused, not the table;
#   * a GPADL's message assembly counts bytes, so "complete" and "more to come" are two events of one message;
#   * a sub-channel lives as long as its device's open primary channel: its record is dropped with the connection, and a
#     close of the primary rescinds it.
"""State tables of the VMBus server: connection, channel, GPADL. The manual draws its graphs from these.

The host's own states are documented nowhere; the sets of states and legal steps follow OpenVMM
(vm/devices/vmbus/vmbus_server/src/channels.rs: ConnectionState, ChannelState, GpadlState), reduced to what one
server without a relay and with devices that answer at once can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

__all__ = [
    "CHANNEL",
    "CONNECTION",
    "GPADL",
    "ChannelEvent",
    "ChannelState",
    "ConnectionEvent",
    "ConnectionState",
    "GpadlEvent",
    "GpadlState",
    "Row",
]

_S = TypeVar("_S", bound=StrEnum)
Row = tuple[_S, tuple[str, ...]]
"""State after the step, and the effects in the order in which they are performed."""


class ConnectionState(StrEnum):
    """What the host knows of the guest's connection."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    OFFERED = "offers delivered"


class ConnectionEvent(StrEnum):
    """What moves a connection: messages of the guest, INITIATE_CONTACT by its outcome."""

    CONTACT_ACCEPTED = "INITIATE_CONTACT, accepted"
    CONTACT_REFUSED = "INITIATE_CONTACT, refused"
    REQUEST_OFFERS = "REQUESTOFFERS"
    UNLOAD = "UNLOAD"


CONNECTION: Final[Mapping[ConnectionState, Mapping[ConnectionEvent, Row[ConnectionState]]]] = MappingProxyType(
    {
        ConnectionState.DISCONNECTED: MappingProxyType(
            {
                ConnectionEvent.CONTACT_ACCEPTED: (ConnectionState.CONNECTED, ("connect", "version_response")),
                ConnectionEvent.CONTACT_REFUSED: (ConnectionState.DISCONNECTED, ("version_response",)),
            }
        ),
        ConnectionState.CONNECTED: MappingProxyType(
            {
                ConnectionEvent.CONTACT_ACCEPTED: (
                    ConnectionState.CONNECTED,
                    ("note_reconnect", "disconnect", "connect", "version_response"),
                ),
                ConnectionEvent.CONTACT_REFUSED: (ConnectionState.DISCONNECTED, ("disconnect", "version_response")),
                ConnectionEvent.REQUEST_OFFERS: (ConnectionState.OFFERED, ("offer_all", "alloffers_delivered")),
                ConnectionEvent.UNLOAD: (ConnectionState.DISCONNECTED, ("disconnect", "unload_response")),
            }
        ),
        ConnectionState.OFFERED: MappingProxyType(
            {
                ConnectionEvent.CONTACT_ACCEPTED: (
                    ConnectionState.CONNECTED,
                    ("note_reconnect", "disconnect", "connect", "version_response"),
                ),
                ConnectionEvent.CONTACT_REFUSED: (ConnectionState.DISCONNECTED, ("disconnect", "version_response")),
                ConnectionEvent.UNLOAD: (ConnectionState.DISCONNECTED, ("disconnect", "unload_response")),
            }
        ),
    }
)
"""Connection: state, event, (next state, effects). An INITIATE_CONTACT on a live connection drops it first, as a guest
that was reset without UNLOAD (kexec, crash kernel) needs."""


class ChannelState(StrEnum):
    """A channel as the host sees it."""

    UNOFFERED = "not offered"
    OFFERED = "offered"
    OPENING = "opening"
    OPEN = "open"
    RESCINDED = "rescinded"
    REMOVED = "removed"


class ChannelEvent(StrEnum):
    """What moves a channel: the guest's messages, the device's answers, the end of the connection."""

    OFFER = "offer"
    OPENCHANNEL = "OPENCHANNEL"
    DEVICE_ACCEPTS = "device accepts"
    DEVICE_REFUSES = "device refuses"
    CLOSECHANNEL = "CLOSECHANNEL"
    MODIFYCHANNEL = "MODIFYCHANNEL"
    RESCIND = "device goes away"
    RELID_RELEASED = "RELID_RELEASED"
    DISCONNECT = "connection ends"


CHANNEL: Final[Mapping[ChannelState, Mapping[ChannelEvent, Row[ChannelState]]]] = MappingProxyType(
    {
        ChannelState.UNOFFERED: MappingProxyType(
            {
                ChannelEvent.OFFER: (ChannelState.OFFERED, ("post_offer",)),
                ChannelEvent.RESCIND: (ChannelState.REMOVED, ()),
                ChannelEvent.DISCONNECT: (ChannelState.UNOFFERED, ()),
            }
        ),
        ChannelState.OFFERED: MappingProxyType(
            {
                ChannelEvent.OPENCHANNEL: (ChannelState.OPENING, ("map_rings",)),
                ChannelEvent.RESCIND: (ChannelState.RESCINDED, ("let_go_gpadls", "post_rescind")),
                ChannelEvent.RELID_RELEASED: (ChannelState.UNOFFERED, ("drop_gpadls", "free_relid")),
                ChannelEvent.DISCONNECT: (ChannelState.UNOFFERED, ("drop_gpadls", "free_relid")),
            }
        ),
        ChannelState.OPENING: MappingProxyType(
            {
                ChannelEvent.DEVICE_ACCEPTS: (ChannelState.OPEN, ("start", "open_result")),
                ChannelEvent.DEVICE_REFUSES: (ChannelState.OFFERED, ("unmap_rings", "open_result")),
            }
        ),
        ChannelState.OPEN: MappingProxyType(
            {
                ChannelEvent.CLOSECHANNEL: (ChannelState.OFFERED, ("stop", "unmap_rings", "tell_device")),
                ChannelEvent.MODIFYCHANNEL: (ChannelState.OPEN, ("retarget", "modify_response")),
                ChannelEvent.RESCIND: (
                    ChannelState.RESCINDED,
                    ("stop", "unmap_rings", "tell_device", "let_go_gpadls", "post_rescind"),
                ),
                ChannelEvent.DISCONNECT: (
                    ChannelState.UNOFFERED,
                    ("stop", "unmap_rings", "tell_device", "drop_gpadls", "free_relid"),
                ),
            }
        ),
        ChannelState.RESCINDED: MappingProxyType(
            {
                ChannelEvent.OPENCHANNEL: (ChannelState.RESCINDED, ()),
                ChannelEvent.CLOSECHANNEL: (ChannelState.RESCINDED, ()),
                ChannelEvent.RELID_RELEASED: (ChannelState.REMOVED, ("drop_gpadls", "free_relid")),
                ChannelEvent.DISCONNECT: (ChannelState.REMOVED, ("drop_gpadls", "free_relid")),
            }
        ),
        ChannelState.REMOVED: MappingProxyType({}),
    }
)
"""Channel: state, event, (next state, effects). A guest may open or close a channel that is already on its way out:
the message crossed the rescind, so it is dropped without an answer (channels.rs: handle_open_channel, Revoked)."""


class GpadlState(StrEnum):
    """A GPADL, from its header to its teardown."""

    ASSEMBLING = "assembling"
    CREATED = "created"
    IN_RING = "ring of an open channel"
    TEARDOWN_WAITS = "teardown waits for the close"
    GONE = "gone"


class GpadlEvent(StrEnum):
    """What moves a GPADL."""

    BODY = "GPADL_BODY, more to come"
    COMPLETE = "last page number"
    REFUSE = "bad or over the limit"
    OPEN = "its channel opens"
    CLOSE = "its channel closes"
    TEARDOWN = "GPADL_TEARDOWN"
    DROP = "relid released or connection ends"


GPADL: Final[Mapping[GpadlState, Mapping[GpadlEvent, Row[GpadlState]]]] = MappingProxyType(
    {
        GpadlState.ASSEMBLING: MappingProxyType(
            {
                GpadlEvent.BODY: (GpadlState.ASSEMBLING, ()),
                GpadlEvent.COMPLETE: (GpadlState.CREATED, ("share", "created")),
                GpadlEvent.REFUSE: (GpadlState.GONE, ("refused",)),
                GpadlEvent.DROP: (GpadlState.GONE, ()),
            }
        ),
        GpadlState.CREATED: MappingProxyType(
            {
                GpadlEvent.OPEN: (GpadlState.IN_RING, ()),
                GpadlEvent.TEARDOWN: (GpadlState.GONE, ("unshare", "torndown")),
                GpadlEvent.DROP: (GpadlState.GONE, ("unshare",)),
            }
        ),
        GpadlState.IN_RING: MappingProxyType(
            {
                GpadlEvent.CLOSE: (GpadlState.CREATED, ()),
                GpadlEvent.TEARDOWN: (GpadlState.TEARDOWN_WAITS, ("note_early_teardown",)),
            }
        ),
        GpadlState.TEARDOWN_WAITS: MappingProxyType(
            {
                GpadlEvent.CLOSE: (GpadlState.GONE, ("unshare", "torndown")),
            }
        ),
        GpadlState.GONE: MappingProxyType({}),
    }
)
"""GPADL: state, event, (next state, effects). *unspecified*: the teardown of a ring that is still open. This host
records it and answers only after the close, so that TORNDOWN always means that the host lets go of the pages."""
