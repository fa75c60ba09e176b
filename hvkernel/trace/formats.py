"""The formats of a trace, by the suffix of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hvkernel.trace.sink import Output, Sink, TraceInfo

__all__ = ["FORMATS", "Format", "UnknownSuffix", "format_of"]


class UnknownSuffix(ValueError):
    """No format has the file's suffix."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    suffixes: tuple[str, ...]
    """The first one is the usual one."""
    make: Callable[[Output, TraceInfo], Sink]


def _ftrace(output: Output, info: TraceInfo) -> Sink:
    from hvkernel.trace.ftrace import FtraceSink

    return FtraceSink(output, info)


def _pcapng(output: Output, info: TraceInfo) -> Sink:
    from hvkernel.trace.pcapng import PcapngSink

    return PcapngSink(output, info)


def _perfetto(output: Output, info: TraceInfo) -> Sink:
    from hvkernel.trace.perfetto import PerfettoSink

    return PerfettoSink(output, info)


FORMATS: Final = (
    Format("ftrace text", (".txt", ".ftrace"), _ftrace),
    Format("Perfetto", (".pftrace", ".perfetto", ".perfetto-trace"), _perfetto),
    Format("pcapng", (".pcapng",), _pcapng),
)
"""Every format that can be recorded. Their modules are imported when a file asks for them."""


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for.

    :raises UnknownSuffix: none does.
    """
    for one in FORMATS:
        if path.suffix.lower() in one.suffixes:
            return one
    known = ", ".join(suffix for one in FORMATS for suffix in one.suffixes)
    raise UnknownSuffix(f"the suffix of a trace says its format, and must be one of {known}")
