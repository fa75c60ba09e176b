"""The tracer of a machine: hands everything it sees to the sinks of the files that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hvkernel.trace.formats import format_of
from hvkernel.trace.sink import Ending, Output, Sink, TraceInfo

if TYPE_CHECKING:
    from hvkernel.machine.tracing import EventRow, Where

__all__ = ["Recorder", "TraceFileError"]


class TraceFileError(Exception):
    """A trace file cannot be opened or written. :attr:`path` says which, :attr:`problem` why."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class Recorder:
    """Feeds any number of sinks. Made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)
        self._closed = False

    @classmethod
    def open(cls, paths: Iterable[Path], info: TraceInfo) -> Recorder:
        """Open all files, so that one that cannot be written is known before anything runs.

        :raises TraceFileError: naming the file; those that were opened are closed.
        """
        sinks: list[Sink] = []
        try:
            for path in paths:
                make = format_of(path).make
                try:
                    output = Output(path)
                except OSError as error:
                    raise TraceFileError(path, error.strerror or "cannot be written") from None
                sinks.append(make(output, info))
        except BaseException:
            for sink in sinks:
                sink.output.close()
            raise
        return cls(sinks)

    def close(self, ending: Ending) -> None:
        """Complete the files and close them. Closing again does nothing.

        :raises TraceFileError: one could not be written; the others are complete.
        """
        if self._closed:
            return
        self._closed = True
        failed: TraceFileError | None = None
        for sink in self.sinks:
            try:
                sink.finish(ending)
                sink.output.close()
            except OSError as error:
                failed = failed or TraceFileError(sink.output.path, error.strerror or "cannot be written")
        if failed is not None:
            raise failed

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        """See :class:`hvkernel.machine.tracing.Tracer`, as for all that follow."""
        for sink in self.sinks:
            sink.tracepoint(where, event, values)

    def begin(self, t: int, vp: int | None, kind: str, name: str) -> None:
        for sink in self.sinks:
            sink.begin(t, vp, kind, name)

    def end(self, t: int, vp: int | None, kind: str) -> None:
        for sink in self.sinks:
            sink.end(t, vp, kind)

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        for sink in self.sinks:
            sink.message(t, vp, to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        for sink in self.sinks:
            sink.packet(t, vp, relid, to_host, data)

    def taken(self, t: int, relid: int, to_host: bool, size: int) -> None:
        for sink in self.sinks:
            sink.taken(t, relid, to_host, size)
