"""Sphinx directives that print the reference parts of the manual from the tables that the program runs on.

=========================================  ===================================================================
``.. abi-constants:: MODULE``              the annotated constants of a wire module, with value and source
``.. abi-enums:: MODULE``                  its enumerations
``.. abi-structs:: MODULE``                its structs with the offset of every field
``.. channel-messages::``                  the table of VMBus channel messages
``.. state-table:: MODULE NAME``           a state machine: drawn, and as a table
``.. host-profiles::``                     the host profiles; ``.. device-classes::`` what they offer
``.. release-differences::``               what differs between kernel releases
``.. sysfs-table:: MODULE NAME``           a table of sysfs or debugfs attributes
``.. tracepoints:: MODULE NAME``           a table of tracepoints
``.. hypercall-table::``                   the hypercalls; ``.. status-table::`` their results
=========================================  ===================================================================
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from hvkernel.abi.wire import Field, Guid, Wire


class Generated(SphinxDirective):
    """A directive whose content is reStructuredText made by :meth:`lines`."""

    has_content = False

    def module(self) -> ModuleType:
        """Import the module that the first argument names, and rebuild the page when it changes."""
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(inspect.getsourcefile(module) or "")
        return module

    def lines(self) -> Iterator[str]:
        """Yield the lines of the content."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse what :meth:`lines` made."""
        return self.parse_text_to_nodes("\n".join(self.lines()))


def table(header: Iterable[str], rows: Iterable[Iterable[str]], widths: str = "auto") -> Iterator[str]:
    """Yield a ``list-table``."""
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield f"   :widths: {widths}"
    yield ""
    for row in (header, *rows):
        for number, cell in enumerate(row):
            yield f"   {'*' if not number else ' '} - {cell}"
    yield ""


def code(value: object) -> str:
    """Return a literal, or nothing for nothing."""
    text = str(value)
    return f"``{text}``" if text else ""


def hexadecimal(value: object) -> str:
    """Show a constant as the kernel's headers would."""
    if isinstance(value, bool) or not isinstance(value, int):
        return code(repr(value))
    return code(value if -10 < value < 10 else hex(value))


def one_line(text: str) -> str:
    """Return a docstring's text on one line."""
    return " ".join(text.split()).replace("``", "").replace("`", "").replace("*", r"\*").replace("|", r"\|")


def described(module: ModuleType) -> dict[str, str]:
    """Return the string under each top-level assignment of a module."""
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            found[node.target.id] = doc if isinstance(doc, str) else ""
    return found


def own_classes(module: ModuleType, base: type) -> Iterator[Any]:
    """Yield the public classes that a module defines, in its order."""
    for name, value in vars(module).items():
        if name.startswith("_") or not isinstance(value, type):
            continue
        if issubclass(value, base) and value.__module__ == module.__name__:
            yield value


def field_type(field: Field) -> str:
    """Name the kind of a wire field in C's words."""
    letters = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "b": "s8", "h": "s16", "i": "s32", "q": "s64"}
    if field.kind == "guid":
        return "guid_t"
    name = letters.get(field.code, "")
    if field.type is not None:
        name = field.type.__kernel__ or field.type.__name__
    if field.kind == "bits":
        return f"{name}:{field.bit_size}"
    if field.kind == "tail":
        return f"{name}[]"
    return name + "".join(f"[{dim}]" for dim in field.dims)


class Constants(Generated):
    """``.. abi-constants:: MODULE``."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield one row per constant."""
        module = self.module()
        texts = described(module)
        rows = []
        for name, text in texts.items():
            value = getattr(module, name)
            if not name.startswith("_") and isinstance(value, int | bytes) and not isinstance(value, Guid):
                rows.append((code(name), hexadecimal(value), one_line(text)))
        if rows:
            yield from table(("name", "value", "meaning and source"), rows)


class Enums(Generated):
    """``.. abi-enums:: MODULE``."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a heading and a table per enumeration."""
        for enum in own_classes(self.module(), Enum):
            yield f".. rubric:: {enum.__name__}"
            yield ""
            yield one_line(inspect.getdoc(enum) or "")
            yield ""
            members = enum.__members__.items()
            yield from table(("name", "value"), ((code(n), hexadecimal(int(m.value))) for n, m in members))


class Tracepoints(Generated):
    """``.. tracepoints:: MODULE NAME``."""

    required_arguments = 2

    def lines(self) -> Iterator[str]:
        """Yield one row per tracepoint."""
        rows = (
            (code(event.name), code(event.format), code("; ".join(f.declaration() for f in event.fields)), event.source)
            for event in getattr(self.module(), self.arguments[1])
        )
        yield from table(("tracepoint", "is printed as", "fields", "passed in"), rows)


class Structs(Generated):
    """``.. abi-structs:: MODULE``."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a heading, a sentence and a field table per struct."""
        for struct in own_classes(self.module(), Wire):
            if "FIELDS" not in vars(struct):
                continue
            yield f".. rubric:: {struct.__kernel__ or struct.__name__}"
            yield f"   :name: struct-{(struct.__kernel__ or struct.__name__).lower().replace('_', '-')}"
            yield ""
            doc = one_line((inspect.getdoc(struct) or "").split("\n\n")[0])
            yield f"{doc} {struct.SIZE} bytes, class ``{struct.__name__}``; source ``{struct.SOURCE}``."
            yield ""
            yield from table(
                ("offset", "bytes", "field", "type"),
                (
                    (
                        code(hex(f.offset)) + (f" bit {f.bit_offset}" if f.kind == "bits" else ""),
                        str(f.size) if f.kind != "tail" else "rest",
                        code(f.name),
                        code(field_type(f)),
                    )
                    for f in struct.FIELDS
                ),
            )


class Messages(Generated):
    """``.. channel-messages::``."""

    def lines(self) -> Iterator[str]:
        """Yield one row per message."""
        from hvkernel.abi.vmbus import CHANNEL_MESSAGES

        rows = []
        for row in CHANNEL_MESSAGES:
            least = "" if row.min_payload_len is None else str(row.min_payload_len)
            if row.sender == "guest":
                least = str(row.struct.SIZE)
            name = row.number.name.removeprefix("CHANNELMSG_")
            since = f"{row.since >> 16}.{row.since & 0xFFFF}"
            tag = row.struct.__kernel__
            rows.append((str(int(row.number)), code(name), row.sender, since, code(tag), least, code(row.source)))
        yield from table(("number", "message", "from", "since", "struct", "at least", "source"), rows)


class StateTable(Generated):
    """``.. state-table:: MODULE NAME``."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Put the drawing before the table."""
        drawing = nodes.raw("", drawn(getattr(self.module(), self.arguments[1])), format="html")
        return [drawing, *super().run()]

    def lines(self) -> Iterator[str]:
        """Yield one row per step."""
        rows = (
            (str(number), label(state), label(event), label(after), "; ".join(code(effect) for effect in effects))
            for number, state, event, after, effects in steps(getattr(self.module(), self.arguments[1]))
        )
        yield from table(("step", "state", "event", "next state", "effects"), rows)


Transitions = Mapping[Any, Any]


def steps(transitions: Transitions) -> Iterator[tuple[int, Enum, Enum, Enum, Any]]:
    """Yield the numbered steps of a state machine, in the order of its table.

    A table is ``{state: {event: (next state, effects)}}``, or ``{(state, event): next state}``.
    """
    number = 0
    for key, row in transitions.items():
        if isinstance(key, tuple):
            number += 1
            yield number, key[0], key[1], row, ()
            continue
        for event, (after, effects) in row.items():
            number += 1
            yield number, key, event, after, effects


def label(member: Enum) -> str:
    """Return what a state or event is called in the manual."""
    return member.value if isinstance(member.value, str) else member.name


def drawn(transitions: Transitions) -> str:
    """Return an SVG of a state machine: states in a column, steps down on the right, up on the left, by number.

    Steps between the same two states share an arrow, arrows that do not meet share a lane. Needs no tool but Python.
    """
    both = (state for _, before, _, after, _ in steps(transitions) for state in (before, after))
    first = next(iter(transitions))
    states = dict.fromkeys(both) if isinstance(first, tuple) else transitions
    rank = {state: number for number, state in enumerate(states)}
    edges: dict[tuple[Enum, Enum], list[str]] = {}
    for number, state, _, after, _ in steps(transitions):
        edges.setdefault((state, after), []).append(str(number))
    wide, box, pitch, lane_width = 190, 36, 78, 56
    lanes: dict[int, list[list[tuple[int, int]]]] = {-1: [], 1: []}
    placed: list[tuple[Enum, Enum, int, int, str]] = []
    loops: dict[Enum, str] = {}
    for (state, after), numbers in sorted(edges.items(), key=lambda edge: abs(rank[edge[0][0]] - rank[edge[0][1]])):
        if state is after:
            loops[state] = ", ".join(numbers)
            continue
        low, high = sorted((rank[state], rank[after]))
        side = 1 if rank[after] > rank[state] else -1
        free = (i for i, lane in enumerate(lanes[side]) if all(high <= a or low >= b for a, b in lane))
        lane = next(free, len(lanes[side]))
        if lane == len(lanes[side]):
            lanes[side].append([])
        lanes[side][lane].append((low, high))
        placed.append((state, after, side, lane, ", ".join(numbers)))
    left = 20 + lane_width * (len(lanes[-1]) + 1)
    width = left + wide + lane_width * (len(lanes[1]) + 1) + 20
    height = 20 + pitch * len(rank)
    parts: list[str] = []
    for state, after, side, lane, numbers in placed:
        edge = left + wide if side > 0 else left
        shift = 4 + 4 * lane
        start, end = (
            20 + pitch * rank[one] + box // 2 + side * sign * shift for one, sign in ((state, 1), (after, -1))
        )
        bend = edge + side * (22 + lane_width * lane)
        parts.append(f'<path d="M{edge} {start}H{bend}V{end}H{edge + side * 2}" marker-end="url(#arrow)"/>')
        parts.append(f'<text x="{bend + 4}" y="{(start + end) // 2 + 4}">{numbers}</text>')
    for state, place in rank.items():
        y = 20 + pitch * place
        parts.append(f'<rect x="{left}" y="{y}" width="{wide}" height="{box}" rx="8"/>')
        parts.append(
            f'<text x="{left + wide // 2}" y="{y + box // 2 + 4}" text-anchor="middle" font-weight="bold">'
            f"{escape(label(state))}</text>"
        )
        if state in loops:
            parts.append(
                f'<text x="{left + wide // 2}" y="{y + box + 15}" text-anchor="middle">&#8635; {loops[state]}</text>'
            )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" xmlns="http://www.w3.org/2000/svg" '
        'style="max-width:100%;font:13px sans-serif"><style>'
        "svg path{fill:none;stroke:currentColor}svg rect{fill:none;stroke:currentColor;stroke-width:1.5}"
        "svg text{fill:currentColor}</style>"
        '<defs><marker id="arrow" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">'
        '<path d="M0 0L8 4L0 8"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def versions(numbers: Iterable[int]) -> str:
    """Return protocol versions in the usual notation."""
    return ", ".join(f"{v >> 16}.{v & 0xFFFF}" for v in numbers)


class Profiles(Generated):
    """``.. host-profiles::``."""

    def lines(self) -> Iterator[str]:
        """Yield an overview, then the devices and the sources of each profile."""
        from hvkernel.config import load_profile, profile_names

        profiles = [load_profile(name) for name in profile_names()]
        rows = []
        for p in profiles:
            generations = ", ".join(
                f"gen{g}" + (" (default)" if g == p.default_generation else "") for g in p.generations
            )
            listed = ", ".join(f"gen{g}: {p.listed_cpus(g) or '-'}" for g in p.generations)
            rows.append(
                (
                    code(p.name), p.title, ", ".join(p.architectures), generations, code(p.build.text),
                    versions(p.vmbus.versions), "yes" if p.vmbus.message_connection_4 else "no",
                    f"{p.vmbus.gpadl_total_mb} MiB", listed,
                )
            )  # fmt: skip
        head = (
            "name",
            "host",
            "architecture",
            "generations",
            "build",
            "VMBus versions",
            "connection 4",
            "GPADLs",
            "CPUs listed",
        )
        yield from table(head, rows)
        for p in profiles:
            yield f".. rubric:: {p.name}"
            yield ""
            for generation in p.generations:
                names = ", ".join(code(kind) for kind in p.kinds(generation))
                yield f"* generation {generation} offers, in this order: {names}"
            for part, source in sorted(p.sources.items()):
                yield f"* {part}: {one_line(source)}"
            yield ""


class Releases(Generated):
    """``.. release-differences::``."""

    def lines(self) -> Iterator[str]:
        """Yield one row per capability."""
        from hvkernel.config.releases import capabilities

        def shown(release: tuple[int, ...] | None) -> str:
            return ".".join(map(str, release)) if release else ""

        rows = ((code(c.name), shown(c.first), shown(c.last), code(c.commit), one_line(c.what)) for c in capabilities())
        yield from table(("capability", "first", "last", "commit", "what"), rows)


class SysfsTable(Generated):
    """``.. sysfs-table:: MODULE NAME``: attributes with mode, format, meaning and source."""

    required_arguments = 2

    def lines(self) -> Iterator[str]:
        """Yield one row per attribute; what a function does is its docstring."""
        attrs = getattr(self.module(), self.arguments[1])
        rows = []
        for attr in attrs if isinstance(attrs, tuple) else (attrs,):
            meaning = " ".join(
                one_line(inspect.getdoc(one) or "") for one in (attr.show, attr.store) if one is not None
            )
            file, _, functions = attr.source.partition(":")
            where = f"{file}: {functions}"
            rows.append((code(attr.name), code(f"{attr.mode:04o}"), code(attr.format), meaning, code(where)))
        yield from table(("file", "mode", "format", "meaning", "source"), rows, "18 7 12 38 25")


class Hypercalls(Generated):
    """``.. hypercall-table::``."""

    def lines(self) -> Iterator[str]:
        """Yield one row per hypercall."""
        from hvkernel.host.hypercalls import table as calls

        rows = []
        for number, call in sorted(calls(16).items()):
            privilege = "" if call.privilege is None else str(call.privilege)
            rows.append(
                (
                    code(f"{number:#06x}"), call.name, str(call.input_size) + ("+" if call.variable else ""),
                    str(call.element_size or ""), str(call.output_element_size or call.output_size or ""),
                    "yes" if call.fast else "", privilege,
                )
            )  # fmt: skip
        yield from table(("code", "hypercall", "input", "per repetition", "output", "fast", "privilege bit"), rows)


class Statuses(Generated):
    """``.. status-table::``."""

    def lines(self) -> Iterator[str]:
        """Yield one row per HV_STATUS."""
        from hvkernel.host.status import HvStatus

        yield from table(("value", "HV_STATUS"), ((code(f"{s.value:#04x}"), code(s.name)) for s in HvStatus))


class DeviceClasses(Generated):
    """``.. device-classes::``."""

    def lines(self) -> Iterator[str]:
        """Yield one row per class."""
        from hvkernel.config import DEVICE_CLASSES

        rows = (
            (code(kind), one_line(c.title), code(c.class_guid), "yes" if c.pipe else "", one_line(c.source))
            for kind, c in DEVICE_CLASSES.items()
        )
        yield from table(("kind", "device", "class", "pipe", "source"), rows)


def importable(name: str) -> bool:
    """Whether a dotted name is a module or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not (hasattr(found, part) or part in getattr(found, "__annotations__", ())):
                return False
            found = getattr(found, part, None)
        return True
    return False


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """Find what a docstring means by a short name: the one object of that name, or one that exists but has no page.

    A name that does not exist anywhere stays a warning, and with it an error of the build.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    domain = env.domains.python_domain
    ends = [name for name in domain.objects if name.endswith("." + target)]
    if len(ends) == 1:
        entry = domain.objects[ends[0]]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, ends[0])
    module, owner = node.get("py:module") or "", node.get("py:class") or ""
    places = (target, f"{module}.{target}", f"{module}.{owner}.{target}", f"{module.rpartition('.')[0]}.{target}")
    if ends or any(importable(place) for place in places if place.startswith("hvkernel")):
        return contnode
    return None


class KernelFaults(Generated):
    """Where Linux 6.1 itself goes wrong, from the table by which the interleavings tell it from faults of the model."""

    def lines(self) -> Iterator[str]:
        path = Path(__file__).parents[2] / "tests/properties/interleavings/known.py"
        self.env.note_dependency(str(path))
        spec = importlib.util.spec_from_file_location("known", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["known"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for fault in module.KNOWN:
            yield from (f"{fault.name[0].upper()}{fault.name[1:]}", f"   {fault.why}", "", f"   *{fault.source}*", "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.connect("missing-reference", resolve)
    app.add_directive("abi-constants", Constants)
    app.add_directive("abi-enums", Enums)
    app.add_directive("abi-structs", Structs)
    app.add_directive("channel-messages", Messages)
    app.add_directive("state-table", StateTable)
    app.add_directive("host-profiles", Profiles)
    app.add_directive("device-classes", DeviceClasses)
    app.add_directive("release-differences", Releases)
    app.add_directive("kernel-faults", KernelFaults)
    app.add_directive("sysfs-table", SysfsTable)
    app.add_directive("tracepoints", Tracepoints)
    app.add_directive("hypercall-table", Hypercalls)
    app.add_directive("status-table", Statuses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
