from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelMessageType
from hvkernel.host.vmbus import tables
from hvkernel.host.vmbus.channel import ServerChannel
from hvkernel.host.vmbus.gpadl import Gpadl
from hvkernel.host.vmbus.handlers import HANDLERS, Handlers
from hvkernel.host.vmbus.server import VmbusServer
from hvkernel.host.vmbus.tables import CHANNEL, CONNECTION, GPADL, ChannelState, ConnectionState, GpadlState

MACHINES = [
    (CONNECTION, ConnectionState.DISCONNECTED, VmbusServer),
    (CHANNEL, ChannelState.UNOFFERED, ServerChannel),
    (GPADL, GpadlState.ASSEMBLING, Gpadl),
]


@pytest.mark.parametrize(("table", "start", "owner"), MACHINES)
def test_every_effect_is_a_method_and_every_method_an_effect(table: Any, start: StrEnum, owner: type) -> None:
    effects = {f"_do_{effect}" for row in table.values() for _, fx in row.values() for effect in fx}
    assert effects == {name for name in vars(owner) if name.startswith("_do_")}


@pytest.mark.parametrize(("table", "start", "owner"), MACHINES)
def test_every_state_is_reached(
    table: Mapping[StrEnum, Mapping[StrEnum, tuple[StrEnum, tuple[str, ...]]]], start: StrEnum, owner: type
) -> None:
    seen = [start]
    for state in seen:
        seen += [after for after, _ in table[state].values() if after not in seen]
    assert set(seen) == set(table) == set(type(start))


def test_every_message_of_a_guest_has_a_handler() -> None:
    guest = {row.number for row in CHANNEL_MESSAGES if row.sender == "guest"}
    assert set(HANDLERS) == guest - {VmbusChannelMessageType.CHANNELMSG_INITIATE_CONTACT}
    assert all(hasattr(Handlers, name) for name in HANDLERS.values())


def test_the_file_of_tables_does_nothing_else() -> None:
    kinds = {type(node) for node in ast.parse(inspect.getsource(tables)).body}
    assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef}
