"""interrupt.h, irq.h, irqflags.h: vectors, handlers, hardirq accounting, the interrupt flag."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hvkernel.api.guest.arch import IpiKind
from hvkernel.api.guest.errno import EBUSY, EINVAL
from hvkernel.api.guest.smp import PerCpu
from hvkernel.linux.preempt import HARDIRQ_MASK, HARDIRQ_OFFSET, SOFTIRQ_MASK
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel


class IrqDesc:
    """struct irq_desc: one Linux irq number."""

    __slots__ = ("counts", "dev_id", "handler", "hwirq", "irq", "name", "percpu")

    def __init__(self, irq: int, hwirq: int, percpu: bool) -> None:
        self.irq = irq
        self.hwirq = hwirq
        self.percpu = percpu
        self.handler: Callable[[int, Any], Any] | None = None
        self.name = ""
        self.dev_id: Any = None
        self.counts: dict[int, int] = {}
        """CPU to number of interrupts, as /proc/interrupts."""


class Irq:
    """``kernel.irq``."""

    FIRST_IRQ = 16
    """Numbers below are the legacy ones. Source: NR_IRQS_LEGACY."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._handlers: dict[int, Callable[[], None]] = {}
        self._names: dict[int, str] = {}
        self._descs: dict[int, IrqDesc] = {}
        self._by_hwirq: dict[int, IrqDesc] = {}
        self._next = self.FIRST_IRQ
        self.counts: dict[tuple[int, int], int] = {}
        """(vector, CPU) to number of interrupts."""
        self.spurious = 0
        self._machine.irq_name = self._name

    def _name(self, vector: int) -> str:
        """The handler's name, as /proc/interrupts has it, and the vector."""
        return f"{self._names.get(vector, 'vector')} {vector:#x}"

    def attach(self, cpu: Cpu) -> None:
        """Let the processor of ``cpu`` enter the kernel on interrupts."""
        counts, handlers = self.counts, self._handlers
        softirq = self._kernel.softirq

        def entry(vector: int) -> None:
            cpu.preempt_count += HARDIRQ_OFFSET
            handler = handlers.get(vector)
            if handler is None:
                self._unexpected(cpu, vector)
            else:
                key = (vector, cpu.cpu)
                counts[key] = counts.get(key, 0) + 1
                before = cpu.preempt_count
                try:
                    handler()
                except Fault as fault:
                    self._kernel.reboot.oops(fault)
                if cpu.preempt_count != before:
                    self._imbalance(cpu, vector, before)
            cpu.preempt_count -= HARDIRQ_OFFSET
            if cpu.softirq_pending and not cpu.preempt_count & (HARDIRQ_MASK | SOFTIRQ_MASK):
                softirq.invoke(cpu)

        cpu.vp.set_entry(entry)

    def _unexpected(self, cpu: Cpu, vector: int) -> None:
        """Source: arch/x86/kernel/irq.c:common_interrupt."""
        self.spurious += 1
        self._kernel.arch.ack_irq(vector)
        self._kernel.printk.pr_emerg(f"common_interrupt: {cpu.cpu}.{vector} No irq handler for vector")

    def _imbalance(self, cpu: Cpu, vector: int, before: int) -> None:
        self._kernel.finding(
            "preempt-imbalance",
            f"WARNING: handler of vector {vector} ({self._names.get(vector, '?')}) returned with preempt_count "
            f"{cpu.preempt_count:08x}, was {before:08x}",
        )
        cpu.preempt_count = before

    # vectors ---------------------------------------------------------------------------------------------------

    def sysvec_install(self, vector: int, handler: Callable[[], None], name: str) -> None:
        """A system vector: ``handler`` acknowledges the interrupt itself. Replaces what was there."""
        self._handlers[vector] = handler
        self._names[vector] = name

    def sysvec_remove(self, vector: int) -> None:
        """Take a system vector out."""
        self._handlers.pop(vector, None)

    def installed(self, vector: int) -> bool:
        """Whether ``vector`` has a handler."""
        return vector in self._handlers

    def install_ipis(self) -> None:
        """The vectors of smp_call_function, reschedule and stop, as the arch numbers them."""
        arch, cpus = self._kernel.arch, self._kernel.cpus
        timers = self._kernel.timers

        def install(kind: IpiKind, fn: Callable[[], None]) -> None:
            vector = arch.ipi_vector(kind)
            if not self.installed(vector):

                def handler() -> None:
                    arch.ack_irq(vector)
                    fn()

                self.sysvec_install(vector, handler, kind.value)

        install(IpiKind.CALL_FUNCTION, cpus.generic_smp_call_function_interrupt)
        install(IpiKind.CALL_FUNCTION_SINGLE, cpus.generic_smp_call_function_interrupt)
        install(IpiKind.RESCHEDULE, timers.scheduler_ipi)
        install(IpiKind.CPU_STOP, cpus.stop_this_cpu)

    # irq numbers -----------------------------------------------------------------------------------------------

    def irq_create_mapping(self, vector: int, *, percpu: bool = False) -> int:
        """The Linux irq number of a hardware interrupt; the same one when asked again."""
        desc = self._by_hwirq.get(vector)
        if desc is None:
            desc = IrqDesc(self._next, vector, percpu)
            self._next += 1
            self._descs[desc.irq] = desc
            self._by_hwirq[vector] = desc
        return desc.irq

    def irq_dispose_mapping(self, irq: int) -> None:
        desc = self._descs.pop(irq, None)
        if desc is not None:
            del self._by_hwirq[desc.hwirq]
            self.sysvec_remove(desc.hwirq)

    def _request(self, irq: int, handler: Callable[[int, Any], Any], name: str, dev_id: Any, percpu: bool) -> int:
        desc = self._descs.get(irq)
        if desc is None or desc.percpu != percpu:
            return -EINVAL
        if desc.handler is not None:
            return -EBUSY
        desc.handler, desc.name, desc.dev_id = handler, name, dev_id
        arch, vector = self._kernel.arch, desc.hwirq
        cpus = self._kernel.cpus

        def flow() -> None:
            cpu = cpus.smp_processor_id()
            desc.counts[cpu] = desc.counts.get(cpu, 0) + 1
            data = desc.dev_id[cpu] if percpu and desc.dev_id is not None else desc.dev_id
            if desc.handler is not None:
                desc.handler(irq, data)
            arch.ack_irq(vector)

        self.sysvec_install(vector, flow, name)
        return 0

    def request_irq(self, irq: int, handler: Callable[[int, Any], Any], name: str, dev_id: Any = None) -> int:
        """0, -EINVAL for an irq that does not exist or is per-CPU, -EBUSY when it is taken."""
        return self._request(irq, handler, name, dev_id, False)

    def free_irq(self, irq: int, dev_id: Any = None) -> None:
        self.free_percpu_irq(irq)

    def request_percpu_irq(
        self, irq: int, handler: Callable[[int, Any], Any], name: str, dev_id: PerCpu[Any] | None = None
    ) -> int:
        """As request_irq() for a per-CPU one; each CPU must still enable it."""
        return self._request(irq, handler, name, dev_id, True)

    def free_percpu_irq(self, irq: int) -> None:
        desc = self._descs.get(irq)
        if desc is not None:
            desc.handler = None
            self.sysvec_remove(desc.hwirq)

    def enable_percpu_irq(self, irq: int) -> None:
        """Unmask on this CPU."""
        self._kernel.arch.enable_percpu_irq(self._descs[irq].hwirq)

    def disable_percpu_irq(self, irq: int) -> None:
        """Mask on this CPU."""
        self._kernel.arch.disable_percpu_irq(self._descs[irq].hwirq)

    # the flag --------------------------------------------------------------------------------------------------

    def local_irq_save(self) -> bool:
        vp = self._kernel.cpus.this_cpu().vp
        flags = vp.irq_enabled
        vp.irq_enabled = False
        return flags

    def local_irq_restore(self, flags: bool) -> None:
        self._kernel.cpus.this_cpu().vp.irq_enabled = flags

    def local_irq_disable(self) -> None:
        self._kernel.cpus.this_cpu().vp.irq_enabled = False

    def local_irq_enable(self) -> None:
        """Interrupts that wait are taken at once."""
        self._kernel.cpus.this_cpu().vp.irq_enabled = True
        self._machine.preempt()

    def irqs_disabled(self) -> bool:
        return not self._kernel.cpus.this_cpu().vp.irq_enabled
