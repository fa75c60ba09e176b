"""ftrace's text: what ``/sys/kernel/tracing/trace`` shows, and the ``format`` files of the events.

Sources: kernel/trace/trace.c:print_trace_header and print_func_help_header_irq, kernel/trace/trace_output.c:
trace_print_context and trace_print_lat_fmt, kernel/trace/trace_events.c:f_show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.machine.tracing import TRACE_FLAG_BH_OFF, TRACE_FLAG_HARDIRQ, TRACE_FLAG_IRQS_OFF, TRACE_FLAG_SOFTIRQ
from hvkernel.trace.sink import Ending, Output, Sink, TraceInfo

if TYPE_CHECKING:
    from hvkernel.api.guest.tracing import TraceEvent
    from hvkernel.machine.tracing import EventRow, Where

__all__ = ["FtraceSink", "context", "format_file"]

TRACER_LINES: Final = "# tracer: nop\n#\n"
COLUMN_LINES: Final = """\
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
COUNT_WIDTH: Final = 80
"""Bytes of the line with the counts, which is written last: blanks fill it, where the kernel's line ends."""

COMMON_FIELDS: Final = (
    ("unsigned short common_type", 0, 2, 0),
    ("unsigned char common_flags", 2, 1, 0),
    ("unsigned char common_preempt_count", 3, 1, 0),
    ("int common_pid", 4, 4, 1),
)
"""Declaration, offset, size and sign of ``struct trace_entry`` (include/linux/trace_events.h)."""
ENTRY_SIZE: Final = 8


def flags(where: Where) -> str:
    """Return the five characters between CPU and time: interrupts, need-resched, context, depth, migration."""
    bits = where.flags
    if bits & TRACE_FLAG_IRQS_OFF:
        irqs = "D" if bits & TRACE_FLAG_BH_OFF else "d"
    else:
        irqs = "b" if bits & TRACE_FLAG_BH_OFF else "."
    hard, soft = bits & TRACE_FLAG_HARDIRQ, bits & TRACE_FLAG_SOFTIRQ
    kind = "H" if hard and soft else "h" if hard else "s" if soft else "."
    depth = f"{where.preempt_count:x}" if where.preempt_count else "."
    return f"{irqs}.{kind}{depth}."


def context(where: Where) -> str:
    """Return the start of a line, up to the event's name: task, process id, CPU, flags and time in microseconds."""
    comm = where.comm if where.pid else "<idle>"
    seconds, micros = divmod((where.ns + 500) // 1000, 1_000_000)
    return f"{comm:>16}-{where.pid:<7} [{where.cpu:03}] {flags(where)} {seconds:5}.{micros:06}: "


class FtraceSink(Sink):
    """Writes the text of a trace. A file that cannot be rewound (a pipe) has no header, as ``trace_pipe`` has none."""

    def __init__(self, output: Output, info: TraceInfo) -> None:
        super().__init__(output, info)
        self.entries = 0
        if output.seekable:
            output.write(TRACER_LINES.encode() + b" " * (COUNT_WIDTH - 1) + b"\n" + COLUMN_LINES.encode())

    def finish(self, ending: Ending) -> None:
        """Write how many events there are into the header."""
        if self.output.seekable:
            counts = f"# entries-in-buffer/entries-written: {self.entries}/{self.entries}   #P:{ending.online}"
            self.output.rewrite(len(TRACER_LINES), counts.ljust(COUNT_WIDTH - 1).encode())

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        """One line."""
        self.entries += 1
        text = event.text(values, self.info.bits)
        self.output.write(f"{context(where)}{event.name}: {text}\n".encode("utf-8", "replace"))


def format_file(event: TraceEvent, number: int, bits: int, *, signed_char: bool = True) -> str:
    """Return what ``/sys/kernel/tracing/events/SYSTEM/EVENT/format`` shows.

    :param number: the event's id, which the kernel gives when it registers the event.
    :param bits: word size of the kernel; it decides the size of ``unsigned long`` and how fields are aligned.
    :param signed_char: whether plain ``char`` is signed: on x86 it is, on arm64 it is not.
    """
    lines = [f"name: {event.name}", f"ID: {number}", "format:"]
    for declaration, offset, size, signed in COMMON_FIELDS:
        lines.append(f"\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};")
    lines.append("")
    at = ENTRY_SIZE
    for field in event.fields:
        alignment, size = field.alignment(bits), field.size(bits)
        at = (at + alignment - 1) // alignment * alignment
        signed = int(field.signed and (signed_char or field.type != "char"))
        lines.append(f"\tfield:{field.declaration()};\toffset:{at};\tsize:{size};\tsigned:{signed};")
        at += size
    arguments = "".join(f", REC->{name}" for name in event.arguments)
    lines += ["", f'print fmt: "{event.format}"{arguments}']
    return "\n".join(lines) + "\n"
