"""The two state tables: every pair of state and event, legal or not."""

from __future__ import annotations

import enum
from types import ModuleType
from typing import Any

import pytest

from hvkernel.hv import channel_state, connection_state
from hvkernel.hv.protocol_error import LocalProtocolError, ProtocolError, RemoteProtocolError


def pairs(module: ModuleType) -> list[tuple[ModuleType, Any, Any]]:
    return [(module, state, event) for state in module.TRANSITIONS for event in module.Event]


@pytest.mark.parametrize(
    ("module", "state", "event"),
    [*pairs(connection_state), *pairs(channel_state)],
    ids=lambda one: one.name if isinstance(one, enum.Enum) else one.__name__.rsplit(".", 1)[-1],
)
def test_every_step_is_in_the_table_or_refused(module: ModuleType, state: Any, event: Any) -> None:
    row = module.TRANSITIONS[state]
    if event in row:
        assert module.step(state, event) is row[event][0]
        return
    kind = RemoteProtocolError if event in module.FROM_HOST else LocalProtocolError
    with pytest.raises(kind) as caught:
        module.step(state, event)
    text = str(caught.value)
    assert text.startswith("VMBus ")
    assert f"{event.value} while {state.name}; expected one of: " in text


@pytest.mark.parametrize("module", [connection_state, channel_state])
def test_every_state_can_be_reached_and_left(module: ModuleType) -> None:
    first = next(iter(module.TRANSITIONS))
    seen = [first]
    for state in seen:
        for following, _ in module.TRANSITIONS[state].values():
            if following not in seen:
                seen.append(following)
    assert set(seen) == set(module.TRANSITIONS)
    assert all(module.TRANSITIONS.values())


def test_the_tables_cannot_be_changed() -> None:
    for module in (connection_state, channel_state):
        with pytest.raises(TypeError):
            module.TRANSITIONS[next(iter(module.TRANSITIONS))] = {}


def test_the_ladder_of_a_refusing_host_ends_where_it_began() -> None:
    state = connection_state.State.DISCONNECTED
    steps = connection_state.Event
    for event in (steps.CONNECT, steps.VERSION_REFUSED, steps.VERSION_REFUSED, steps.UNLOAD):
        state = connection_state.step(state, event)
    assert state is connection_state.State.DISCONNECTED


def test_both_errors_are_protocol_errors() -> None:
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    with pytest.raises(RemoteProtocolError, match="OPENCHANNEL_RESULT: status 0 while CHANNEL_OPENED_STATE"):
        channel_state.step(channel_state.State.CHANNEL_OPENED_STATE, channel_state.Event.OPEN_RESULT_OK)
