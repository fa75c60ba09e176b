"""The Wireshark dissector's tables, made from the wire classes, so that it cannot fall behind them.

``vmbus.lua`` beside this module is two parts: the tables that :func:`tables` makes, and the code that reads them. The
file in the tree has the tables of the plugins in the tree; ``hvkernel decode --dissector`` prints one with those of
all plugins that are installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from types import ModuleType
from typing import Final

from hvkernel.abi import ring, vmbus
from hvkernel.abi.guids import GUIDS
from hvkernel.abi.meaning import Choice, Dictionary, Flags, Form, Names, dictionary, tag
from hvkernel.abi.wire import Field, Wire
from hvkernel.trace.pcapng import PcapHeader

__all__ = ["FILE", "dissector", "tables"]

FILE: Final = "vmbus.lua"
"""Name of the dissector's file in this package."""
_BEGIN: Final = "-- tables: begin\n"
_END: Final = "-- tables: end\n"

_PACKET_STRUCTS: Final[tuple[type[Wire], ...]] = (
    ring.VmpacketDescriptor,
    ring.VmtransferPagePacketHeader,
    ring.VmtransferPageRange,
    ring.VmgpadlPacketHeader,
    ring.VmaddRemoveTransferPageSet,
    ring.GpaRange,
    ring.VmestablishGpadl,
    ring.VmteardownGpadl,
    ring.VmdataGpaDirect,
    ring.VmadditionalData,
)


def dissector(modules: Iterable[ModuleType]) -> str:
    """Return the whole Lua file with the tables of some plugins' wire modules."""
    text = files(__package__ or "hvkernel.trace").joinpath(FILE).read_text("utf-8")
    head, _, rest = text.partition(_BEGIN)
    return f"{head}{_BEGIN}{tables(modules)}{_END}{rest.partition(_END)[2]}"


def tables(modules: Iterable[ModuleType]) -> str:
    """Return the tables as Lua text."""
    words = dictionary(modules)
    wanted: dict[str, type[Wire]] = {}
    roots: list[type[Wire]] = [PcapHeader, *(row.struct for row in vmbus.CHANNEL_MESSAGES), *_PACKET_STRUCTS]
    for cls in [*roots, *(row.struct for row in words.payloads)]:
        _reach(cls, wanted)
    meanings = _used_meanings(words, wanted)
    lines = ["local NAMES, FLAGS, STRUCTS = {}, {}, {}"]
    for key, meaning in meanings.items():
        if isinstance(meaning, Names):
            lines += _map(f'NAMES["{key}"]', dict(sorted(meaning.values.items())))
        elif isinstance(meaning, Flags):
            lines += _map(f'FLAGS["{key}"]', dict(sorted(meaning.bits.items())))
    for name in sorted(wanted):
        lines += _struct(words, name, wanted[name])
    lines.append("local MESSAGES = {")
    for row in vmbus.CHANNEL_MESSAGES:
        lines.append(
            f'  [{int(row.number)}] = {{ name = "{row.number.name}", struct = "{tag(row.struct)}", '
            f"to_host = {str(row.sender == 'guest').lower()}, since = {row.since:#x} }},"
        )
    lines.append("}")
    lines += _map("local GUIDS", {f'"{guid.hex()}"': name for name, guid in GUIDS.items()})
    lines.append("local PAYLOADS = {")
    for payload in words.payloads:
        repeats = ", ".join(f"[{int(value)}] = true" for value in payload.repeats)
        for guid in payload.classes:
            lines.append(
                f'  ["{guid.hex()}"] = {{ name = "{payload.name}", struct = "{tag(payload.struct)}", '
                f'selector = "{payload.selector}", repeats = {{ {repeats} }}, '
                f"may_end_early = {str(payload.may_end_early).lower()} }},"
            )
    lines.append("}")
    return "\n".join(lines) + "\n"


def _reach(cls: type[Wire], found: dict[str, type[Wire]]) -> None:
    if tag(cls) not in found:
        found[tag(cls)] = cls
        for field in cls.FIELDS:
            if field.type is not None and field.kind != "tail":
                _reach(field.type, found)


def _used_meanings(words: Dictionary, wanted: dict[str, type[Wire]]) -> dict[str, Names | Flags]:
    used: dict[str, Names | Flags] = {}
    for name in sorted(wanted):
        for field in wanted[name].FIELDS:
            meaning = words.meanings.get(f"{name}.{field.name}")
            if isinstance(meaning, Names | Flags):
                used[f"{name}.{field.name}"] = meaning
    return used


def _map(name: str, rows: dict[str, str] | dict[int, str]) -> list[str]:
    def key(value: str | int) -> str:
        return f"{value:#x}" if isinstance(value, int) else value

    return [f"{name} = {{", *(f'  [{key(value)}] = "{text}",' for value, text in rows.items()), "}"]


def _struct(words: Dictionary, name: str, cls: type[Wire]) -> Iterator[str]:
    yield f'STRUCTS["{name}"] = {{ size = {cls.SIZE}, fields = {{'
    for field in cls.FIELDS:
        if field.kind != "tail":
            yield f"  {{ {', '.join(_row(words, name, field))} }},"
    rules = words.choices.get(name, ())
    if rules:
        yield "}, choices = {"
        yield from (f"  {_choice(rule)}," for rule in rules)
    yield "} }"


def _row(words: Dictionary, name: str, field: Field) -> Iterator[str]:
    key = f"{name}.{field.name}"
    meaning = words.meanings.get(key)
    yield f'name = "{field.name}", offset = {field.offset}, size = {field.size}, kind = "{field.kind}"'
    if field.kind == "bits":
        yield f"shift = {field.bit_offset}, bits = {field.bit_size}"
    if field.kind in ("ints", "wires"):
        yield f"count = {field.elements}"
    if field.code.islower() and field.kind in ("int", "ints"):
        yield "signed = true"
    if field.type is not None:
        yield f'struct = "{tag(field.type)}"'
    if isinstance(meaning, Names):
        yield f'names = "{key}"'
        if meaning.closed:
            yield "closed = true"
    elif isinstance(meaning, Flags):
        yield f'flags = "{key}"'
    elif isinstance(meaning, Form):
        yield f'form = "{meaning.value}"'


def _choice(rule: Choice) -> str:
    def listed(names: tuple[str, ...]) -> str:
        return "{ " + ", ".join(f'"{name}"' for name in names) + " }"

    values = ", ".join(f"[{int(value):#x}] = true" for value in rule.values)
    return (
        f'{{ selector = "{rule.selector}", test = "{rule.test.value}", value = {int(rule.values[0]):#x}, '
        f"values = {{ {values} }}, yes = {listed(rule.yes)}, no = {listed(rule.no)} }}"
    )
