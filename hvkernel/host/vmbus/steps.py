"""Taking a step in a state table: the state changes, then the effects run; an illegal step changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from hvkernel.host.vmbus.tables import Row

__all__ = ["RemoteProtocolError", "next_row"]

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class RemoteProtocolError(Exception):
    """The guest asked for a step that the table does not have."""


def next_row(table: Mapping[S, Mapping[E, Row[S]]], what: str, state: S, event: E) -> Row[S]:
    """Look up one step.

    :param what: the object in the error's text (``channel 3``).
    :raises RemoteProtocolError: the table has no such step.
    """
    row = table[state].get(event)
    if row is None:
        legal = ", ".join(table[state]) or "nothing"
        raise RemoteProtocolError(f"{what} is in state '{state}', where '{event}' is not legal (legal: {legal})")
    return row
