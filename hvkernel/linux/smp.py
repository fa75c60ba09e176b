"""smp.h, cpumask.h, topology.h: CPUs, calls between them, bringing secondaries up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.arch import IpiKind
from hvkernel.api.guest.errno import ENXIO
from hvkernel.linux.cpu import Cpu

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel
    from hvkernel.machine import VirtualProcessor

RELAX: Final = 5
"""Virtual time of one cpu_relax() round while waiting for another CPU, 100 ns units. A choice of ours."""

FOREVER: Final = 1 << 50
"""A halted CPU's nap, 100 ns units (3.5 years)."""


class CallSingleData:
    """struct call_single_data: one function to run on another CPU."""

    __slots__ = ("args", "done", "func")

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.func = func
        self.args = args
        self.done = False


class Cpus:
    """``kernel.cpus``. CPU numbers follow the MADT, the boot CPU first; see :meth:`setup`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        boot = kernel.machine.boot_vp
        self.cpus: list[Cpu] = [Cpu(0, boot.hw_id, boot.node, boot)]
        boot.guest = self.cpus[0]
        self.present: list[int] = [0]
        self.nr_cpu_ids = 1
        self._nodes = 1
        self._node_of_hw: dict[int, int] = {}
        self._node_masks: dict[int, tuple[int, ...]] = {}
        """Of :meth:`cpumask_of_node`, as far as somebody asked since a CPU went online or offline."""

    # numbering -------------------------------------------------------------------------------------------------

    def setup(self, entries: Sequence[tuple[int, bool]], nodes: dict[int, int], limit: int) -> None:
        """Number the CPUs that the firmware names.

        :param entries: (hardware id, enabled) in the order of the MADT. The boot CPU is 0 wherever it stands; the
            enabled ones follow in order and are present, then the disabled ones, which are possible only.
        :param nodes: hardware id to NUMA node, from the SRAT.
        :param limit: CONFIG_NR_CPUS; what is beyond is ignored, as the kernel does.

        Source: arch/x86/kernel/apic/apic.c:generic_processor_info, arch/arm64/kernel/smp.c:acpi_map_gic_cpu_interface.
        """
        boot = self.cpus[0]
        by_hw = {vp.hw_id: vp for vp in self._machine.vps}
        present, possible = [0], []
        seen = {boot.hw_id: None}
        for hw_id, enabled in entries:
            if hw_id in seen:
                continue
            seen[hw_id] = None
            if enabled and len(self.cpus) < limit:
                vp = by_hw.get(hw_id)
                cpu = Cpu(len(self.cpus), hw_id, 0, vp)
                if vp is not None:
                    vp.guest = cpu
                self.cpus.append(cpu)
                present.append(cpu.cpu)
            elif not enabled:
                possible.append(hw_id)
        for hw_id in possible:
            if len(self.cpus) >= limit:
                break
            self.cpus.append(Cpu(len(self.cpus), hw_id, 0, None))
        for cpu in self.cpus:
            cpu.node = nodes.get(cpu.hw_id, 0)
        self.present = present
        self.nr_cpu_ids = len(self.cpus)
        self._nodes = len({cpu.node for cpu in self.cpus})
        self._node_masks.clear()

    # masks -----------------------------------------------------------------------------------------------------

    def this_cpu(self) -> Cpu:
        """The CPU that runs the caller. :raises RuntimeError: when no guest code runs."""
        vp = self._machine.current_vp
        if vp is None:
            raise RuntimeError("smp_processor_id() outside guest code: call it from a task of the guest")
        cpu: Cpu = vp.guest
        return cpu

    def smp_processor_id(self) -> int:
        """Number of :meth:`this_cpu`. :raises RuntimeError: when no guest code runs."""
        vp = self._machine.current_vp
        number: int = vp.guest.cpu if vp is not None else self.this_cpu().cpu
        return number

    def get_cpu(self) -> int:
        """preempt_disable() and the CPU number."""
        vp = self._machine.current_vp
        cpu: Cpu = vp.guest if vp is not None else self.this_cpu()
        cpu.preempt_count += 1
        return cpu.cpu

    def put_cpu(self) -> None:
        self._kernel.sched.preempt_enable()

    def cpu(self, cpu: int) -> Cpu:
        """:raises ValueError: for a number that is no possible CPU."""
        if not 0 <= cpu < self.nr_cpu_ids:
            raise ValueError(f"CPU {cpu} is not possible here (nr_cpu_ids={self.nr_cpu_ids})")
        return self.cpus[cpu]

    def num_present_cpus(self) -> int:
        return len(self.present)

    def num_possible_cpus(self) -> int:
        return self.nr_cpu_ids

    def num_online_cpus(self) -> int:
        return sum(cpu.online for cpu in self.cpus)

    def cpu_online(self, cpu: int) -> bool:
        return 0 <= cpu < self.nr_cpu_ids and self.cpus[cpu].online

    def for_each_possible_cpu(self) -> Iterator[int]:
        return iter(range(self.nr_cpu_ids))

    def for_each_present_cpu(self) -> Iterator[int]:
        return iter(tuple(self.present))

    def for_each_online_cpu(self) -> Iterator[int]:
        return iter([cpu.cpu for cpu in self.cpus if cpu.online])

    def cpu_to_node(self, cpu: int) -> int:
        return self.cpus[cpu].node

    def cpumask_of_node(self, node: int) -> Sequence[int]:
        """Online CPUs of ``node``, ascending.

        A CPU enters its node's mask when it starts and leaves it when it goes offline (arch/x86/kernel/cpu/common.c:
        identify_cpu, smpboot.c: remove_cpu_from_maps; arch/arm64/kernel/smp.c: secondary_start_kernel, __cpu_disable).
        """
        mask = self._node_masks.get(node)
        if mask is None:
            online = (cpu for cpu in self.cpus if cpu.online)
            mask = self._node_masks[node] = tuple(cpu.cpu for cpu in online if cpu.node == node)
        return mask

    def set_cpu_online(self, cpu: Cpu, online: bool) -> None:
        """Enter a CPU into the online mask, or take it out."""
        cpu.online = online
        self._node_masks.clear()

    def nr_node_ids(self) -> int:
        """How many nodes have CPUs."""
        return self._nodes

    # calls -----------------------------------------------------------------------------------------------------

    def smp_call_function_single(self, cpu: int, func: Callable[..., Any], *args: Any, wait: bool = True) -> int:
        """Run ``func(*args)`` on ``cpu`` in interrupt context; 0, or -ENXIO when it is offline."""
        me = self.this_cpu()
        if cpu == me.cpu:
            self._local(func, args)
            return 0
        if not self.cpu_online(cpu):
            return -ENXIO
        csd = CallSingleData(func, args)
        self.cpus[cpu].call_queue.append(csd)
        self._kernel.arch.send_ipi([cpu], IpiKind.CALL_FUNCTION_SINGLE)
        if wait:
            self._wait([csd])
        return 0

    def smp_call_function_many(
        self, cpus: Sequence[int], func: Callable[..., Any], *args: Any, wait: bool = True
    ) -> None:
        """Run it on those of ``cpus`` that are online and not the caller's."""
        me = self.smp_processor_id()
        targets = [cpu for cpu in cpus if cpu != me and self.cpu_online(cpu)]
        if not targets:
            return
        calls = []
        for cpu in targets:
            csd = CallSingleData(func, args)
            calls.append(csd)
            self.cpus[cpu].call_queue.append(csd)
        kind = IpiKind.CALL_FUNCTION_SINGLE if len(targets) == 1 else IpiKind.CALL_FUNCTION
        self._kernel.arch.send_ipi(targets, kind)
        if wait:
            self._wait(calls)

    def on_each_cpu(self, func: Callable[..., Any], *args: Any) -> None:
        """On all online CPUs, the caller's too, and wait."""
        sched = self._kernel.sched
        sched.preempt_disable()
        me = self.smp_processor_id()
        targets = [cpu.cpu for cpu in self.cpus if cpu.online and cpu.cpu != me]
        calls = []
        for cpu in targets:
            csd = CallSingleData(func, args)
            calls.append(csd)
            self.cpus[cpu].call_queue.append(csd)
        if targets:
            kind = IpiKind.CALL_FUNCTION_SINGLE if len(targets) == 1 else IpiKind.CALL_FUNCTION
            self._kernel.arch.send_ipi(targets, kind)
        self._local(func, args)
        self._wait(calls)
        sched.preempt_enable()

    def _local(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        irq = self._kernel.irq
        flags = irq.local_irq_save()
        try:
            func(*args)
        finally:
            irq.local_irq_restore(flags)

    def _wait(self, calls: Sequence[CallSingleData]) -> None:
        machine = self._machine
        for csd in calls:
            while not csd.done:
                machine.delay(RELAX)

    def generic_smp_call_function_interrupt(self) -> None:
        """Run what other CPUs queued for this one."""
        queue = self.this_cpu().call_queue
        while queue:
            csd = queue.popleft()
            csd.func(*csd.args)
            csd.done = True

    # stopping --------------------------------------------------------------------------------------------------

    def smp_send_stop(self) -> None:
        """Let every other online CPU halt."""
        me = self.smp_processor_id()
        others = [cpu.cpu for cpu in self.cpus if cpu.online and cpu.cpu != me and not cpu.stopped]
        if others:
            self._kernel.arch.send_ipi(others, IpiKind.CPU_STOP)

    def stop_this_cpu(self) -> None:
        """What the stop vector runs: offline, interrupts off, halt. Does not return."""
        cpu = self.this_cpu()
        self.set_cpu_online(cpu, False)
        cpu.stopped = True
        self.halt()

    def halt(self) -> None:
        """Interrupts off, and nothing ever again on this CPU."""
        vp = self.this_cpu().vp
        while True:
            vp.irq_enabled = False
            self._machine.delay(FOREVER)

    # bring-up --------------------------------------------------------------------------------------------------

    def secondary_entry(self, vp: VirtualProcessor) -> None:
        """The function that the machine runs on a started processor."""
        cpu: Cpu = vp.guest
        task = self._machine.current
        assert task is not None
        task.locals["idle"] = True  # the kernel brings a CPU up on its idle task
        self._kernel.guard(self.secondary_start, cpu.cpu)

    def secondary_start(self, cpu: int) -> None:
        """start_secondary()/secondary_start_kernel(): the arch's part, the STARTING callbacks, then online."""
        this = self.cpus[cpu]
        self._kernel.irq.attach(this)
        self._kernel.arch.start_secondary(cpu)
        self._kernel.cpuhp.notify_cpu_starting(this)
        self.set_cpu_online(this, True)
        this.vp.irq_enabled = True
        self._kernel.cpuhp.cpuhp_online_idle(this)

    def smp_init(self) -> None:
        """Bring all present CPUs up and say so. Source: kernel/smp.c:smp_init."""
        pr = self._kernel.printk
        pr.pr_info("smp: Bringing up secondary CPUs ...")
        for cpu in self.present:
            if not self.cpus[cpu].online:
                self._kernel.cpuhp.cpu_up(cpu)
        nodes = len({cpu.node for cpu in self.cpus if cpu.online})
        cpus = self.num_online_cpus()
        pr.pr_info(f"smp: Brought up {nodes} node{'s' if nodes > 1 else ''}, {cpus} CPU{'s' if cpus > 1 else ''}")
        self._kernel.arch.smp_cpus_done(cpus)
