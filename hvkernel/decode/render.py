"""Prints explanations: as text, and as what ``--json`` holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hvkernel.decode.node import Explained, Node

__all__ = ["to_json", "to_text"]


def to_text(found: Sequence[Explained]) -> Iterator[str]:
    """Yield lines: offset, bytes, name and value of every member; ``!`` is a problem, ``-`` a remark."""
    for number, one in enumerate(found):
        if number:
            yield ""
        problems = one.all_problems()
        summary = "nothing wrong" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        yield f"{one.kind}: {one.size} bytes, {summary}"
        for note in one.notes:
            yield f"- {note}"
        for offset, text in one.problems:
            yield f"! {offset:#06x} {text}"
        for record in one.records:
            yield ""
            yield from _node(record, 0)


def _node(node: Node, depth: int) -> Iterator[str]:
    shown = node.raw[:8].hex() + ("..." if node.size > 8 else "") if not node.children else ""
    name = node.name
    if node.bits is not None:
        first, width = node.bits
        name += f" (bit {first})" if width == 1 else f" (bits {first}-{first + width - 1})"
    value = f": {node.text}" if node.text else ""
    yield f"{node.offset:#06x} {shown:<19} {'  ' * depth}{name}{value}"
    pad = " " * 27 + "  " * depth
    for text in node.problems:
        yield f"{pad}! {text}"
    for text in node.notes:
        yield f"{pad}- {text}"
    for child in node.children:
        yield from _node(child, depth + 1)


def to_json(found: Sequence[Explained], name: str) -> dict[str, Any]:
    """Return the document of ``--json``; the numbers are the same as in the text."""
    return {
        "schema": 1,
        "file": name,
        "clean": not any(one.all_problems() for one in found),
        "inputs": [
            {
                "kind": one.kind,
                "bytes": one.size,
                "problems": [{"offset": offset, "text": text} for offset, text in one.all_problems()],
                "notes": one.notes,
                "records": [record.to_json() for record in one.records],
            }
            for one in found
        ],
    }
