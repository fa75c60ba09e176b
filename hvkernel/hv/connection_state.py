"""The VMBus connection's states, guest side. Every change of ``vmbus_connection.conn_state`` is a row of this table.

Outside the table, on purpose: *which* version is tried next (:func:`hvkernel.hv.connection.vmbus_connect` walks the
ladder while the state stays CONNECTING), and the kernel's ``DISCONNECTING``, which Linux 6.1 declares and never enters.
A VERSION_RESPONSE that nobody waits for is no event: the guest looks for a request that it answers and finds none.
Resuming does not enter CONNECTING: until the host has accepted, works with offers are still dropped.
Source: drivers/hv/connection.c, channel_mgmt.c:vmbus_initiate_unload, vmbus_drv.c:vmbus_bus_resume.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hvkernel.abi.vmbus import VmbusConnectState as State
from hvkernel.hv.protocol_error import LocalProtocolError, RemoteProtocolError

__all__ = ["TRANSITIONS", "Event", "State", "step"]


class Event(enum.Enum):
    """What moves the connection."""

    CONNECT = "vmbus_connect()"
    RESUME = "vmbus_bus_resume()"
    VERSION_ACCEPTED = "VERSION_RESPONSE: supported"
    VERSION_REFUSED = "VERSION_RESPONSE: not supported"
    UNLOAD = "vmbus_initiate_unload()"


TRANSITIONS: Final[Mapping[State, Mapping[Event, tuple[State, tuple[str, ...]]]]] = MappingProxyType(
    {
        State.DISCONNECTED: MappingProxyType(
            {
                Event.CONNECT: (State.CONNECTING, ("post INITIATE_CONTACT",)),
                Event.RESUME: (State.DISCONNECTED, ("post INITIATE_CONTACT with the version in use before",)),
                Event.VERSION_ACCEPTED: (State.CONNECTED, ("keep the message connection id", "post REQUESTOFFERS")),
                Event.VERSION_REFUSED: (State.DISCONNECTED, ()),
                Event.UNLOAD: (State.DISCONNECTED, ()),
            }
        ),
        State.CONNECTING: MappingProxyType(
            {
                Event.VERSION_ACCEPTED: (State.CONNECTED, ("keep the message connection id", "post REQUESTOFFERS")),
                Event.VERSION_REFUSED: (State.CONNECTING, ("post INITIATE_CONTACT with the next lower version",)),
                Event.UNLOAD: (State.DISCONNECTED, ()),
            }
        ),
        State.CONNECTED: MappingProxyType(
            {Event.UNLOAD: (State.DISCONNECTED, ("post UNLOAD from version 3.0 on", "wait for UNLOAD_RESPONSE"))}
        ),
    }
)
"""From a state and an event to the next state and the effects, by name."""

FROM_HOST: Final = frozenset({Event.VERSION_ACCEPTED, Event.VERSION_REFUSED})


def step(state: State, event: Event) -> State:
    """Return the state after ``event``.

    :raises LocalProtocolError: the guest asked for a step that the table does not have.
    :raises RemoteProtocolError: the host did.
    """
    row = TRANSITIONS[state]
    if event not in row:
        kind = RemoteProtocolError if event in FROM_HOST else LocalProtocolError
        expected = ", ".join(one.value for one in row)
        raise kind(f"VMBus connection: {event.value} while {state.name}; expected one of: {expected}")
    return row[event][0]
