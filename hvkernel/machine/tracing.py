"""What may watch a machine: the tracepoints of the guest, what its processors do, and what crosses the VMBus.

A tracer sees and changes nothing: it takes no virtual time, draws no random number and is no preemption point, so a
traced run and an untraced one are the same run. Only numbers, bytes and names are handed to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

__all__ = [
    "TRACE_FLAG_BH_OFF",
    "TRACE_FLAG_HARDIRQ",
    "TRACE_FLAG_IRQS_OFF",
    "TRACE_FLAG_SOFTIRQ",
    "EventRow",
    "Tracer",
    "Where",
]

TRACE_FLAG_IRQS_OFF: Final = 0x01
TRACE_FLAG_HARDIRQ: Final = 0x08
TRACE_FLAG_SOFTIRQ: Final = 0x10
TRACE_FLAG_BH_OFF: Final = 0x80
"""``enum trace_flag_type`` of include/linux/trace_events.h."""


class Where(NamedTuple):
    """Where and when an event of the guest happened."""

    t: int
    """Virtual time, 100 ns units."""
    ns: int
    """The guest's ``sched_clock()``, nanoseconds: what dmesg's time stamps go by."""
    cpu: int
    """The guest's number of the processor."""
    vp: int
    """The hypervisor's number of the processor."""
    pid: int
    """0 for the idle task."""
    comm: str
    """Name of the task, at most 15 characters."""
    flags: int
    """TRACE_FLAG_* bits."""
    preempt_count: int
    """Depth of disabled preemption."""


class EventRow(Protocol):
    """One tracepoint, as its table describes it (:class:`hvkernel.api.guest.tracing.TraceEvent`)."""

    @property
    def system(self) -> str:
        """TRACE_SYSTEM: ``hyperv``."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the event's TP_STRUCT__entry, in order."""
        ...

    def text(self, values: Sequence[int | bytes], bits: int = 64) -> str:
        """The event as its TP_printk prints it, in a kernel of that word size."""
        ...


class Tracer(Protocol):
    """The watcher of one machine (``Machine.tracer``). Times are in 100 ns units."""

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        """Take one event of the guest.

        :param values: of the fields, in the order of ``event.field_names``.
        """

    def begin(self, t: int, vp: int | None, kind: str, name: str) -> None:
        """A processor begins something; what it began before goes on below it.

        :param vp: VP index; ``None`` for the host.
        :param kind: "task", "interrupt" or "tasklet".
        """

    def end(self, t: int, vp: int | None, kind: str) -> None:
        """What the processor began last and did not end is over."""

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        """Take one channel message, header included, as it was posted.

        :param vp: VP index that posted it, or that it was posted to.
        """

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        """Take one packet of a ring as it was published: descriptor, payload and padding, without the trailer.

        :param vp: VP index that wrote it; for a packet to the guest, the one that the channel interrupts.
        """

    def taken(self, t: int, relid: int, to_host: bool, size: int) -> None:
        """The reader of a ring gave room back.

        :param to_host: whether the host is the reader.
        :param size: bytes, of packets with their trailers of 8 bytes.
        """
