"""panic.h, kmsg_dump.h, reboot.h: how a kernel ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hvkernel.api.guest.device import DIE_OOPS, KMSG_DUMP_PANIC
from hvkernel.linux.preempt import INTERRUPT_MASK
from hvkernel.machine import Fault, GeneralProtectionFault, PageFault, UndefinedOpcode

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

KMSG_DUMP_OOPS: Final = 2
KMSG_DUMP_SHUTDOWN: Final = 4
"""Source: include/linux/kmsg_dump.h."""

SYS_RESTART: Final = 1
SYS_HALT: Final = 2
SYS_POWER_OFF: Final = 3
"""Source: include/linux/reboot.h."""


class Reboot:
    """``kernel.reboot``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._dumpers: list[Callable[[int], None]] = []
        self.panicked = ""
        """The text of the first panic, empty before."""
        self.panic_timeout = 0
        self.panic_on_oops = False
        self.crash_kexec_post_notifiers = False
        self.crash_kexec: Callable[[], None] | None = None
        """Set when a crash kernel is loaded: starts it, does not return."""
        self.machine_ops: dict[str, Callable[[], None]] = {}
        """What the arch does for ``restart``, ``power_off``, ``shutdown`` (native_machine_* otherwise: halt)."""
        self.ended = ""
        """``restart``, ``halt`` or ``power_off`` once the kernel has ended itself so."""

    def setup(self) -> None:
        """``panic=`` and ``oops=panic``, with their defaults from the configuration. Source: kernel/panic.c."""
        config, cmdline = self._kernel.config, self._kernel.cmdline
        text = config.value("PANIC_TIMEOUT")
        default = int(text) if text.removeprefix("-").isdigit() else 0
        self.panic_timeout = cmdline.integer("panic", default)
        self.panic_on_oops = cmdline.get("oops") == "panic" or config.y("PANIC_ON_OOPS")

    def kmsg_dump_register(self, dump: Callable[[int], None]) -> int:
        """``dump(reason)`` is called on panic and on shutdown."""
        self._dumpers.append(dump)
        return 0

    def kmsg_dump_unregister(self, dump: Callable[[int], None]) -> int:
        if dump in self._dumpers:
            self._dumpers.remove(dump)
        return 0

    def kmsg_dump(self, reason: int) -> None:
        """Let every dumper have the log."""
        for dump in tuple(self._dumpers):
            dump(reason)

    def panic(self, text: str) -> NoReturn:
        """panic(): say it, stop the others, tell whoever wants to know, and stand still. Source:
        kernel/panic.c:panic."""
        kernel = self._kernel
        cpu = kernel.cpus.this_cpu()
        cpu.vp.irq_enabled = False
        cpu.preempt_count += 1
        if self.panicked:
            kernel.cpus.halt()
        self.panicked = text
        kernel.printk.pr_emerg(f"Kernel panic - not syncing: {text}")
        if not self.crash_kexec_post_notifiers and self.crash_kexec is not None:
            self.crash_kexec()
        kernel.cpus.smp_send_stop()
        kernel.notifier.panic_notifier_list.call_chain(0, text)
        self.kmsg_dump(KMSG_DUMP_PANIC)
        if self.crash_kexec_post_notifiers and self.crash_kexec is not None:
            self.crash_kexec()
        kernel.finish("panic", text)
        if self.panic_timeout:
            if self.panic_timeout > 0:
                kernel.printk.pr_emerg(f"Rebooting in {self.panic_timeout} seconds..")
                kernel.sched.mdelay(self.panic_timeout * 1000)
            self.emergency_restart()
        kernel.printk.pr_emerg(f"---[ end Kernel panic - not syncing: {text} ]---")
        kernel.cpus.halt()
        raise AssertionError("a halted CPU went on")

    def hung_task(self, text: str) -> NoReturn:
        """The caller would wait for itself for ever: say so and wait."""
        self._kernel.printk.pr_err(text)
        while True:
            self._kernel.machine.block()

    def oops(self, fault: Fault) -> None:
        """A fault in kernel code: print it, tell die_chain, panic when the kernel cannot go on without this task.

        Returns in a task that may die; its caller ends it. Source: arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
        dumpstack.c:oops_end. The register dump is not modelled.
        """
        kernel = self._kernel
        cpu = kernel.cpus.this_cpu()
        if isinstance(fault, PageFault):
            text = kernel.arch.page_fault_text(fault.gpa, kernel.mm.PAGE_SIZE)
        elif isinstance(fault, GeneralProtectionFault):
            text = f"general protection fault, maybe for address {getattr(fault, 'gpa', fault.register):#x}"
        elif isinstance(fault, UndefinedOpcode):
            text = "invalid opcode: 0000"
        else:
            text = str(fault)
        kernel.printk.pr_alert(text)
        kernel.finding("oops", f"{text} ({fault})")
        kernel.notifier.die_chain.call_chain(DIE_OOPS, fault)
        if cpu.preempt_count & INTERRUPT_MASK:
            self.panic("Fatal exception in interrupt")
        if self.panic_on_oops:
            self.panic("Fatal exception")
        if kernel.is_init_task():
            self.panic("Attempted to kill init! exitcode=0x00000009")

    def bug(self, text: str) -> NoReturn:
        """BUG(): the kernel cannot go on."""
        self._kernel.printk.pr_crit(f"kernel BUG at {text}")
        self.panic("Fatal exception")

    # orderly ends ----------------------------------------------------------------------------------------------

    def _end(self, action: int, name: str, text: str) -> None:
        kernel = self._kernel
        if kernel.machine.current is None:
            raise RuntimeError(f"{name} outside guest code")
        kernel.notifier.reboot_notifier_list.call_chain(action)
        kernel.driver.device_shutdown()
        self.kmsg_dump(KMSG_DUMP_SHUTDOWN)
        kernel.printk.pr_emerg(text)
        shutdown = self.machine_ops.get("shutdown")
        if shutdown is not None:
            shutdown()
        self._halt(name)

    def _halt(self, name: str) -> None:
        self.ended = name
        op = self.machine_ops.get(name)
        if op is not None:
            op()
        self._kernel.finish(name, "")
        self._kernel.cpus.smp_send_stop()
        self._kernel.cpus.halt()

    def orderly_poweroff(self, force: bool = False) -> None:
        """User space's poweroff in another task, as the shutdown IC asks."""
        del force
        self._kernel.spawn(self.kernel_power_off, name="poweroff")

    def orderly_reboot(self) -> None:
        """User space's reboot in another task."""
        self._kernel.spawn(self.kernel_restart, name="reboot")

    def kernel_power_off(self) -> None:
        self._end(SYS_POWER_OFF, "power_off", "reboot: Power down")

    def kernel_restart(self) -> None:
        self._end(SYS_RESTART, "restart", "reboot: Restarting system")

    def emergency_restart(self) -> None:
        """Restart without asking anybody."""
        self._halt("restart")

    def state(self) -> dict[str, Any]:
        """For reports."""
        return {"panicked": self.panicked, "ended": self.ended}
