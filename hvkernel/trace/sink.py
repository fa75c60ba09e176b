"""What every trace format stands on: the file, and a tracer that takes everything and keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hvkernel.machine.tracing import EventRow, Where

__all__ = ["Ending", "NullTracer", "Output", "Sink", "TraceInfo"]

BUFFER: Final = 1 << 16
"""Bytes that are collected before they are written."""


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What is known of a run before it begins."""

    release: str = ""
    """The guest's kernel, as ``6.1.192``."""
    arch: str = ""
    bits: int = 64
    page_size: int = 4096
    host: str = ""
    """Name of the host profile."""
    generation: int = 0
    seed: int = 0
    version: str = ""
    """Of hvkernel."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when a run is over."""

    online: int
    """Online CPUs."""
    cpus: Mapping[int, int]
    """VP index to the guest's number of the CPU."""


class Output:
    """A file that is written once, from its beginning. A failure to write is kept until :meth:`close`.

    The guest runs while a trace is written, so an error that was raised at once would look to it like one of its own.

    :raises OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self._file = path.open("wb", buffering=0)
        self._parts: list[bytes] = []
        self._held = 0
        self.seekable = self._file.seekable()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._parts.append(data)
        self._held += len(data)
        if self._held >= BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the system."""
        data = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._held = 0
        try:
            while data and self.error is None:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            self.error = error

    def rewrite(self, at: int, data: bytes) -> None:
        """Replace what was written at an offset; only where the file is :attr:`seekable`."""
        self.flush()
        if self.error is None:
            try:
                self._file.seek(at)
                self._file.write(data)
                self._file.seek(0, 2)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        """Write the rest and close. Closing again does nothing.

        :raises OSError: something could not be written.
        """
        if self._file.closed:
            return
        self.flush()
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error
        if self.error is not None:
            raise self.error


class NullTracer:
    """A :class:`hvkernel.machine.tracing.Tracer` that leaves everything out; who wants something overrides it."""

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None: ...
    def begin(self, t: int, vp: int | None, kind: str, name: str) -> None: ...
    def end(self, t: int, vp: int | None, kind: str) -> None: ...
    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None: ...
    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None: ...
    def taken(self, t: int, relid: int, to_host: bool, size: int) -> None: ...


class Sink(NullTracer):
    """A trace format. Subclasses override what they record, and :meth:`finish` for what ends the file."""

    def __init__(self, output: Output, info: TraceInfo) -> None:
        self.output = output
        self.info = info

    def finish(self, ending: Ending) -> None:
        """The run is over: write what belongs at the end. The file is closed afterwards."""
