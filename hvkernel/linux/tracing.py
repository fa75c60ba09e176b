"""linux/tracepoint.h and kernel/trace: the kernel's tracepoints, and what is recorded with each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.linux.preempt import HARDIRQ_MASK, PREEMPT_MASK, SOFTIRQ_MASK, SOFTIRQ_OFFSET
from hvkernel.machine.tracing import (
    TRACE_FLAG_BH_OFF,
    TRACE_FLAG_HARDIRQ,
    TRACE_FLAG_IRQS_OFF,
    TRACE_FLAG_SOFTIRQ,
    Where,
)

if TYPE_CHECKING:
    from hvkernel.api.guest.tracing import TraceEvent
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

TASK_COMM_LEN: Final = 16
"""Source: include/linux/sched.h, with the final zero."""
NS_PER_UNIT: Final = 100


class Tracing:
    """``kernel.tracing``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._events: dict[tuple[str, str], TraceEvent] = {}
        self._clock: Callable[[], int] | None = None
        self._clock_start = 0
        """``sched_clock()`` was zero then: nanoseconds of the machine's time."""

    @property
    def enabled(self) -> bool:
        """Whether anybody watches."""
        return self._machine.tracer is not None

    @property
    def events(self) -> tuple[TraceEvent, ...]:
        """All tracepoints of this kernel, in the order of their registration."""
        return tuple(self._events.values())

    def register(self, events: Sequence[TraceEvent]) -> None:
        """Make a table known. :raises ValueError: a tracepoint of that name exists."""
        for event in events:
            if self._events.setdefault((event.system, event.name), event) is not event:
                raise ValueError(f"tracepoint {event.system}:{event.name} is registered twice")

    def clock_read(self, ns: int) -> None:
        """Learn how ``sched_clock()`` lies to the machine's time, from a value that was just read.

        Reading it costs time (it may be a trap), so a tracepoint computes it instead. It counts from the moment at
        which it became the scheduler's clock.
        """
        clock = self._kernel.clocksource.sched_clock_source
        if clock is not self._clock:
            self._clock = clock
            self._clock_start = self._machine.clock.now * NS_PER_UNIT - ns

    def event(self, event: TraceEvent, *values: int | bytes) -> None:
        """Pass a tracepoint, on the CPU and in the task of the caller."""
        tracer = self._machine.tracer
        if tracer is not None:
            tracer.tracepoint(self._where(), event, values)

    def _where(self) -> Where:
        """Source: kernel/trace/trace.c:tracing_gen_ctx_irq_test. Need-resched and migration are not modelled.

        Process ids are the machine's numbers of the tasks; *unspecified*, as they depend on everything that ever ran.
        The boot task is 1 and is called ``swapper/0``, as the kernel's first process is.
        """
        machine = self._machine
        now = machine.clock.now
        vp = machine.current_vp
        task = machine.current
        if vp is None or task is None:
            raise RuntimeError("a tracepoint outside guest code")
        cpu: Cpu = vp.guest
        count = cpu.preempt_count
        flags = 0 if vp.irq_enabled else TRACE_FLAG_IRQS_OFF
        if count & HARDIRQ_MASK:
            flags |= TRACE_FLAG_HARDIRQ
        if count & SOFTIRQ_MASK:
            if count & SOFTIRQ_OFFSET:
                flags |= TRACE_FLAG_SOFTIRQ
            if (count & SOFTIRQ_MASK) >= 2 * SOFTIRQ_OFFSET:
                flags |= TRACE_FLAG_BH_OFF
        pid = 0 if "idle" in task.locals else task.number
        return Where(
            now,
            now * NS_PER_UNIT - self._clock_start,
            cpu.cpu,
            vp.vp_index,
            pid,
            task.name[: TASK_COMM_LEN - 1] if pid else f"swapper/{cpu.cpu}",
            flags,
            min(count & PREEMPT_MASK, 15),
        )
