"""What the values of a field mean, and which of the members that share bytes holds: how `hvkernel decode` and the
Wireshark dissector know more than offsets.

A wire module says it in three module attributes, all optional: ``MEANINGS`` (``"tag.field"`` to a `Meaning`),
``CHOICES`` (tag to `Choice` rules) and ``PAYLOADS`` (`Payload` rows). This module is only their vocabulary; the VMBus's
own are in `hvkernel.abi.meanings`. ``tag`` is the C tag, or the class name where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum
from types import MappingProxyType, ModuleType
from typing import Final, NamedTuple, TypeAlias

from hvkernel.abi.wire import Guid, Wire

__all__ = [
    "TO_HOST",
    "Choice",
    "Dictionary",
    "Flags",
    "Form",
    "Meaning",
    "Names",
    "Payload",
    "Test",
    "dictionary",
    "names",
    "tag",
]


class Names(NamedTuple):
    """The field is one of some named numbers."""

    values: Mapping[int, str]
    closed: bool = True
    """False when values without a name are nothing unusual."""


class Flags(NamedTuple):
    """The field is a set of bits."""

    bits: Mapping[int, str]
    """Mask to name; a mask of several bits is there when all of them are."""


class Form(Enum):
    """How to show a number that is no enumeration."""

    DECIMAL = "decimal"
    VERSION = "version"
    """major << 16 | minor."""
    VERSION8 = "version8"
    """major << 8 | minor."""
    UNITS8 = "units8"
    """Counts 8-byte units."""


Meaning: TypeAlias = Names | Flags | Form


class Test(Enum):
    """How a `Choice` looks at its selector."""

    IN = "in"
    """It is one of the values."""
    FROM = "from"
    """It is the value or more."""
    BITS = "bits"
    """It has all bits of the value."""


TO_HOST: Final = "@to_host"
"""Selector that stands for the direction: 1 to the host, 0 to the guest."""


class Choice(NamedTuple):
    """Which members of a struct hold, by the value of another: ``yes`` when the test holds, ``no`` when not."""

    selector: str
    """A member of the same struct, or `TO_HOST`."""
    test: Test
    values: tuple[int, ...]
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()


class Payload(NamedTuple):
    """What the payload of a ring packet is, for some device classes."""

    name: str
    classes: tuple[Guid, ...]
    struct: type[Wire]
    selector: str = ""
    """Member that says what the packet is; a completion whose value is in ``repeats`` is as its request."""
    repeats: tuple[int, ...] = ()
    may_end_early: bool = False
    """True when a packet may end before the struct does."""


class Dictionary(NamedTuple):
    """What all wire modules at hand say."""

    structs: Mapping[str, type[Wire]]
    meanings: Mapping[str, Meaning]
    choices: Mapping[str, tuple[Choice, ...]]
    payloads: tuple[Payload, ...]

    def payload(self, class_guid: bytes) -> Payload | None:
        """Return the row of a device class, None when nobody knows what it speaks."""
        for row in self.payloads:
            if class_guid in row.classes:
                return row
        return None


def tag(cls: type[Wire]) -> str:
    """Return the name by which a struct goes in ``MEANINGS``."""
    return cls.__kernel__ or cls.__name__


def names(enum: type[IntEnum], *, closed: bool = True) -> Names:
    """Return an enumeration as names; of two members with one value the first."""
    return Names(MappingProxyType({int(member): member.name for member in enum}), closed)


def dictionary(modules: Iterable[ModuleType]) -> Dictionary:
    """Put together what the modules say, the VMBus's own always among it; of two for one field the first holds."""
    from hvkernel.abi import meanings, ring, tlfs_synic, vmbus_messages

    structs: dict[str, type[Wire]] = {}
    meaning: dict[str, Meaning] = {}
    choices: dict[str, tuple[Choice, ...]] = {}
    payloads: list[Payload] = []
    for module in (meanings, ring, tlfs_synic, vmbus_messages, *modules):
        for key, value in getattr(module, "MEANINGS", {}).items():
            meaning.setdefault(key, value)
        for key, rules in getattr(module, "CHOICES", {}).items():
            choices.setdefault(key, tuple(rules))
        payloads.extend(getattr(module, "PAYLOADS", ()))
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Wire) and "FIELDS" in vars(value):
                structs.setdefault(tag(value), value)
    return Dictionary(structs, meaning, choices, tuple(payloads))
