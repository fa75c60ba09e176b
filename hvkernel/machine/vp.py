"""Virtual processors: what the guest's code may do on one, and what reaches it from outside.

The guest *traps* (CPUID, synthetic registers, hypercalls, MMIO and ports): the host's handler runs inline, as if
the processor were stopped, and the interrupts it raises are delivered when the trap is over. The host *interrupts*: a
vector is latched and, when the processor accepts interrupts, the guest's entry function runs on top of whatever task
stands there.

CPU number, hardware id (APIC id, MPIDR) and VP index are three different numbers; the machine knows the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hvkernel.machine.clock import (
    COST_CPUID,
    COST_HYPERCALL,
    COST_INTERRUPT,
    COST_IO,
    COST_MMIO,
    COST_RDMSR,
    COST_WRMSR,
    Timer,
)
from hvkernel.machine.faults import MachineError

if TYPE_CHECKING:
    from hvkernel.machine.sched import Lane, Task
    from hvkernel.machine.scheduler import Scheduler

MAX_VPS: Final = 4096
"""Most virtual processors of a machine: what a VP set of 64 banks of 64 can name. Source: TLFS, "Virtual Processor
Sets"."""


@dataclass(frozen=True, slots=True)
class VpTopology:
    """One virtual processor as the host describes it."""

    vp_index: int
    """The hypervisor's number: 0, 1, ... without gaps over the machine."""
    hw_id: int
    """APIC id or MPIDR; unique, at most 64 bits."""
    node: int = 0
    """NUMA node."""


class TrapHandler(Protocol):
    """The host's side of the boundary. `vp` is a VP index.

    A handler runs inline on the guest's task: it may raise interrupts, wake tasks, arm timers and raise a
    :class:`~hvkernel.machine.faults.Fault` at the guest; it may not block.
    """

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX."""
        ...

    def rdmsr(self, vp: int, n: int) -> int:
        """The 64-bit value of register `n`."""
        ...

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        """Write register `n`."""
        ...

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        """Execute the calling instruction `opcode` with the registers of the architecture's convention; returns
        them."""
        ...

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        """Read `size` bytes of device memory."""
        ...

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        """Write `size` bytes of device memory."""
        ...

    def io_in(self, vp: int, port: int, size: int) -> int:
        """Read `size` bytes from a port."""
        ...

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        """Write `size` bytes to a port."""
        ...


def check_topology(vps: Sequence[VpTopology]) -> tuple[VpTopology, ...]:
    """`vps` if they can be one machine's. :raises ValueError: naming field, value and limit."""
    if not vps:
        raise ValueError("vps: none; a machine needs at least one virtual processor")
    if len(vps) > MAX_VPS:
        raise ValueError(f"vps: {len(vps)} virtual processors, the limit is {MAX_VPS}")
    indexes: dict[int, VpTopology] = {}
    hw_ids: dict[int, VpTopology] = {}
    for vp in vps:
        if not 0 <= vp.vp_index < len(vps):
            raise ValueError(f"vps: vp_index {vp.vp_index} is outside 0..{len(vps) - 1}; VP indexes have no gaps")
        if vp.vp_index in indexes:
            raise ValueError(f"vps: vp_index {vp.vp_index} is there twice")
        if not 0 <= vp.hw_id < 1 << 64:
            raise ValueError(f"vps: hw_id {vp.hw_id:#x} of vp_index {vp.vp_index} does not fit 64 bits")
        if vp.hw_id in hw_ids:
            other = hw_ids[vp.hw_id].vp_index
            raise ValueError(f"vps: hw_id {vp.hw_id:#x} is there twice, for vp_index {other} and {vp.vp_index}")
        if vp.node < 0:
            raise ValueError(f"vps: node {vp.node} of vp_index {vp.vp_index} is negative")
        indexes[vp.vp_index] = hw_ids[vp.hw_id] = vp
    return tuple(vps)


class VirtualProcessor:
    """One virtual processor of a machine.

    `guest` is an opaque slot for the guest, `host` one for the host; the machine looks at neither.
    """

    __slots__ = (
        "_clock",
        "_entry",
        "_lane",
        "_machine",
        "_pending",
        "_timer",
        "guest",
        "host",
        "hw_id",
        "irq_depth",
        "irq_enabled",
        "node",
        "started",
        "vp_index",
    )

    def __init__(self, machine: Scheduler, topology: VpTopology) -> None:
        self._machine = machine
        self._clock = machine.clock
        self._lane: Lane = machine._new_lane(f"vp{topology.vp_index}", self)
        self._entry: Callable[[int], object] | None = None
        self._pending: dict[int, None] = {}
        self._timer: Timer | None = None
        self.vp_index: Final = topology.vp_index
        self.hw_id: Final = topology.hw_id
        self.node: Final = topology.node
        self.irq_enabled: bool = False
        """Whether interrupts are accepted: off at reset, the guest's to set. Off while an interrupt is entered, on
        again when its entry function returns; a task that blocks gets its own state back when it goes on. Setting it
        does not deliver anything by itself: the next preemption point does."""
        self.irq_depth: int = 0
        """How many interrupts are being handled on top of each other."""
        self.started: bool = False
        self.guest: Any = None
        self.host: Any = None

    @property
    def current(self) -> Task | None:
        """The task that stands on this processor, also while another lane runs; None if it is idle."""
        lane = self._lane
        return None if lane.running is lane.idle else lane.running

    # -- interrupts --------------------------------------------------------------

    def set_entry(self, fn: Callable[[int], object] | None) -> None:
        """Set the guest's interrupt entry, called as ``fn(vector)``. Without one, interrupts stay pending."""
        self._entry = fn
        self._machine._irq_raised(self)

    def raise_irq(self, vector: int) -> bool:
        """Latch interrupt `vector`. Returns False if it was pending already: the two become one.

        :raises ValueError: negative vector.
        """
        if vector < 0:
            raise ValueError(f"vector: {vector} is negative")
        if vector in self._pending:
            return False
        self._pending[vector] = None
        self._machine._irq_raised(self)
        return True

    def clear_irq(self, vector: int) -> bool:
        """Withdraw a pending interrupt. Returns False if it was not pending."""
        if vector in self._pending:
            del self._pending[vector]
            return True
        return False

    @property
    def pending_irqs(self) -> tuple[int, ...]:
        """The vectors that are latched, in the order in which they will be delivered."""
        key = self._machine._irq_key
        return tuple(sorted(self._pending, key=key)) if key else tuple(self._pending)

    def _deliver(self) -> None:
        """Run the guest's entry for what is pending, until nothing is or interrupts are off."""
        machine = self._machine
        pending = self._pending
        while pending and self.irq_enabled and self._entry is not None and self.started:
            key = machine._irq_key
            vector = min(pending, key=key) if key else next(iter(pending))
            del pending[vector]
            self.irq_enabled = False
            self.irq_depth += 1
            machine.stats.interrupts += 1
            self._clock.now += COST_INTERRUPT
            tracer = machine.tracer
            if tracer is not None:
                tracer.begin(self._clock.now, self.vp_index, "interrupt", machine.irq_name(vector))
            try:
                self._entry(vector)
            finally:
                self.irq_depth -= 1
                self.irq_enabled = True
                if tracer is not None:
                    tracer.end(self._clock.now, self.vp_index, "interrupt")

    # -- start, stop, timer ----------------------------------------------------------

    def start(self) -> bool:
        """Start the processor: the function of :meth:`Machine.set_secondary_entry` runs on it, with interrupts off.

        What INIT/SIPI does on x86 and CPU_ON of PSCI on arm64. Returns False if it runs already.

        :raises MachineError: no secondary entry was set.
        """
        return self._machine._start_vp(self)

    def stop(self) -> None:
        """Halt the processor. Its context is lost: the task that stands on it is ended, pending interrupts are
        dropped.

        Tasks in its queue wait until it is started again. From the processor's own code it does not return.
        """
        self.set_local_timer(None, 0)
        self._pending.clear()
        self.started = False
        self._machine._stop_vp(self)

    def set_local_timer(self, deadline: int | None, vector: int) -> None:
        """Arm the processor's own one-shot timer (LAPIC deadline timer, architected timer), or disarm it with None.

        :param deadline: absolute virtual time, 100 ns units.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._clock.at(deadline, lambda: self._expire(vector))

    def _expire(self, vector: int) -> None:
        self._timer = None
        self.raise_irq(vector)

    # -- traps: for the guest's code on this processor --------------------------------

    def _begin(self, cost: int) -> TrapHandler:
        machine = self._machine
        if machine.current_vp is not self:
            machine._check_trap(self)
        handler = machine._handler
        if handler is None:
            raise MachineError(f"trap on {self._lane.name}: the machine has no trap handler")
        self._clock.now += cost
        machine._host_depth += 1
        return handler

    def cpuid(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a CPUID leaf."""
        machine = self._machine
        handler = self._begin(COST_CPUID)
        machine.stats.cpuid += 1
        try:
            words = handler.cpuid(self.vp_index, leaf, subleaf)
        finally:
            machine._host_depth -= 1
        machine.preempt()
        return words

    def rdmsr(self, n: int) -> int:
        """Read register `n`. Faults: GeneralProtectionFault."""
        machine = self._machine
        handler = self._begin(COST_RDMSR)
        machine.stats.rdmsr += 1
        try:
            value = handler.rdmsr(self.vp_index, n)
        finally:
            machine._host_depth -= 1
        machine.preempt()
        return value

    def wrmsr(self, n: int, v: int) -> None:
        """Write register `n`. Faults: GeneralProtectionFault."""
        machine = self._machine
        handler = self._begin(COST_WRMSR)
        machine.stats.wrmsr += 1
        try:
            handler.wrmsr(self.vp_index, n, v)
        finally:
            machine._host_depth -= 1
        machine.preempt()

    def hypercall(self, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        """Execute the hypercall instruction `opcode` with `regs`, in the architecture's convention; returns
        registers.

        Faults: UndefinedOpcode, GeneralProtectionFault.
        """
        machine = self._machine
        handler = self._begin(COST_HYPERCALL)
        machine.stats.hypercall += 1
        try:
            out = handler.hypercall(self.vp_index, opcode, regs)
        finally:
            machine._host_depth -= 1
        machine.preempt()
        return out

    def mmio_read(self, gpa: int, size: int) -> int:
        """Read `size` bytes of device memory at `gpa`. Faults: PageFault."""
        machine = self._machine
        handler = self._begin(COST_MMIO)
        machine.stats.mmio += 1
        try:
            value = handler.mmio_read(self.vp_index, gpa, size)
        finally:
            machine._host_depth -= 1
        machine.preempt()
        return value

    def mmio_write(self, gpa: int, size: int, v: int) -> None:
        """Write `size` bytes of device memory at `gpa`. Faults: PageFault."""
        machine = self._machine
        handler = self._begin(COST_MMIO)
        machine.stats.mmio += 1
        try:
            handler.mmio_write(self.vp_index, gpa, size, v)
        finally:
            machine._host_depth -= 1
        machine.preempt()

    def io_in(self, port: int, size: int) -> int:
        """Read `size` bytes from `port`."""
        machine = self._machine
        handler = self._begin(COST_IO)
        machine.stats.io += 1
        try:
            value = handler.io_in(self.vp_index, port, size)
        finally:
            machine._host_depth -= 1
        machine.preempt()
        return value

    def io_out(self, port: int, size: int, v: int) -> None:
        """Write `size` bytes to `port`."""
        machine = self._machine
        handler = self._begin(COST_IO)
        machine.stats.io += 1
        try:
            handler.io_out(self.vp_index, port, size, v)
        finally:
            machine._host_depth -= 1
        machine.preempt()

    def __repr__(self) -> str:
        return f"<VirtualProcessor {self.vp_index} hw_id {self.hw_id:#x}{'' if self.started else ', not started'}>"
