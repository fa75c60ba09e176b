"""A VMBus channel's states, guest side. Every change of ``vmbus_channel.state`` is a row of this table.

Outside the table, on purpose: rescind (``channel->rescind`` is a flag beside the state: a rescinded channel keeps the
state it was in until it is closed and freed) and the channel's end, which is freeing it. An OPENCHANNEL_RESULT that
nobody waits for is no event. Opening or closing in another state is -EINVAL before the table is asked.
Source: drivers/hv/channel.c, drivers/hv/channel_mgmt.c:vmbus_add_channel_work.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hvkernel.abi.vmbus import VmbusChannelState as State
from hvkernel.hv.protocol_error import LocalProtocolError, RemoteProtocolError

__all__ = ["TRANSITIONS", "Event", "State", "step"]


class Event(enum.Enum):
    """What moves a channel."""

    ADDED = "vmbus_add_channel_work()"
    OPEN = "vmbus_open()"
    OPEN_RESULT_OK = "OPENCHANNEL_RESULT: status 0"
    OPEN_FAILED = "open given up"
    CLOSE = "vmbus_close()"


TRANSITIONS: Final[Mapping[State, Mapping[Event, tuple[State, tuple[str, ...]]]]] = MappingProxyType(
    {
        State.CHANNEL_OFFER_STATE: MappingProxyType(
            {Event.ADDED: (State.CHANNEL_OPEN_STATE, ("create the device, or tell the primary's driver",))}
        ),
        State.CHANNEL_OPEN_STATE: MappingProxyType(
            {
                Event.OPEN: (
                    State.CHANNEL_OPENING_STATE,
                    ("post GPADL_HEADER and GPADL_BODYs", "post OPENCHANNEL"),
                ),
            }
        ),
        State.CHANNEL_OPENING_STATE: MappingProxyType(
            {
                Event.OPEN_RESULT_OK: (State.CHANNEL_OPENED_STATE, ()),
                Event.OPEN_FAILED: (State.CHANNEL_OPEN_STATE, ("post GPADL_TEARDOWN",)),
            }
        ),
        State.CHANNEL_OPENED_STATE: MappingProxyType(
            {Event.CLOSE: (State.CHANNEL_OPEN_STATE, ("post CLOSECHANNEL", "post GPADL_TEARDOWN"))}
        ),
    }
)
"""From a state and an event to the next state and the effects, by name."""

FROM_HOST: Final = frozenset({Event.OPEN_RESULT_OK})


def step(state: State, event: Event) -> State:
    """Return the state after ``event``.

    :raises LocalProtocolError: the guest asked for a step that the table does not have.
    :raises RemoteProtocolError: the host did.
    """
    row = TRANSITIONS[state]
    if event not in row:
        kind = RemoteProtocolError if event in FROM_HOST else LocalProtocolError
        expected = ", ".join(one.value for one in row)
        raise kind(f"VMBus channel: {event.value} while {state.name}; expected one of: {expected}")
    return row[event][0]
