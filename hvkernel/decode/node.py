"""What an explanation is made of, and what all explainers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from hvkernel.abi.guids import guid_name
from hvkernel.abi.meaning import Dictionary
from hvkernel.abi.wire import Guid

__all__ = ["SHOWN_BYTES", "Bus", "Explained", "Node", "Offered", "Unrecognised"]

SHOWN_BYTES: Final = 32
"""Bytes of a blob that are shown; the rest is counted."""


class Unrecognised(ValueError):
    """The input is nothing that can be explained; the text says why."""


@dataclass(slots=True)
class Node:
    """One thing in the input: a record, a struct, a member."""

    name: str
    offset: int
    """In the bytes that are explained."""
    size: int
    text: str = ""
    """The value in words."""
    value: int | str | list[int] | None = None
    raw: bytes = b""
    """Its bytes, at most :data:`SHOWN_BYTES`; empty for what has members."""
    bits: tuple[int, int] | None = None
    """First bit and number of bits, of a bit-field."""
    children: list[Node] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What cannot be right."""
    notes: list[str] = field(default_factory=list)
    """What is unusual."""

    def all_problems(self) -> list[tuple[int, str]]:
        """Every problem here and below, with its offset."""
        found = [(self.offset, text) for text in self.problems]
        for child in self.children:
            found += child.all_problems()
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the node as ``--json`` prints it."""
        row: dict[str, Any] = {"name": self.name, "offset": self.offset, "size": self.size}
        if self.bits is not None:
            row |= {"bit_offset": self.bits[0], "bit_size": self.bits[1]}
        if self.raw:
            row["bytes"] = self.raw.hex()
        if self.value is not None:
            row["value"] = self.value
        if self.text:
            row["text"] = self.text
        if self.problems:
            row["problems"] = self.problems
        if self.notes:
            row["notes"] = self.notes
        if self.children:
            row["fields"] = [child.to_json() for child in self.children]
        return row


@dataclass(slots=True)
class Explained:
    """A whole input, explained."""

    kind: str
    """As ``--as`` names it."""
    size: int
    """Bytes that were explained."""
    records: list[Node]
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Of the input as a whole; those of the records are theirs."""
    notes: list[str] = field(default_factory=list)

    def all_problems(self) -> list[tuple[int, str]]:
        """Every problem with its offset, those of the whole first."""
        return [*self.problems, *(found for record in self.records for found in record.all_problems())]


@dataclass(frozen=True, slots=True)
class Offered:
    """What an offer said of a channel."""

    if_type: Guid
    if_instance: Guid
    sub_channel_index: int

    def __str__(self) -> str:
        sub = f" sub-channel {self.sub_channel_index}" if self.sub_channel_index else ""
        return f"{guid_name(self.if_type) or self.if_type} {self.if_instance}{sub}"


@dataclass(slots=True)
class Bus:
    """What earlier records said, for those that follow."""

    words: Dictionary
    limit: int = 1000
    """Records that are explained."""
    device: Guid | None = None
    """Device class of packets that do not say theirs."""
    asked: int = 0
    version: int | None = None
    """Negotiated VMBus version; None when the input does not say."""
    offers: dict[int, Offered] = field(default_factory=dict)
    gpadls: dict[int, int] = field(default_factory=dict)
    """Page numbers that bodies still owe, by GPADL."""
    requests: dict[tuple[int, bool, int], int | None] = field(default_factory=dict)
    """Selector of the payload of requests that wait for a completion: by relid, direction and transaction id."""
