"""kernel/power/hibernate.c, drivers/base/power/main.c, syscore.c: what hibernation asks of devices.

Modelled is the part in which Hyper-V has a say: the noirq callbacks of devices, taking the other processors down, and
the syscore callbacks of the last one. Freezing of tasks, the earlier phases, suspended clocks, and the image itself
are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvkernel.linux.printk import KERN_ERR

if TYPE_CHECKING:
    from hvkernel.api.guest.device import Device, DevPmOps
    from hvkernel.linux.kernel import Kernel

__all__ = ["Power", "SyscoreOps"]


@dataclass(frozen=True, slots=True, eq=False)
class SyscoreOps:
    """struct syscore_ops. Called on one CPU with interrupts off."""

    suspend: Callable[[], int]
    resume: Callable[[], None]


class Power:
    """``kernel.power``."""

    __slots__ = ("_frozen_cpus", "_kernel", "_suspended", "_syscore")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._syscore: list[SyscoreOps] = []
        self._suspended: list[Device] = []
        self._frozen_cpus: list[int] = []

    def register_syscore_ops(self, suspend: Callable[[], int], resume: Callable[[], None]) -> SyscoreOps:
        """Have ``suspend`` called last and ``resume`` first; returns what unregister_syscore_ops() takes."""
        ops = SyscoreOps(suspend, resume)
        self._syscore.append(ops)
        return ops

    def unregister_syscore_ops(self, ops: SyscoreOps) -> None:
        self._syscore.remove(ops)

    # devices ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _callback(dev: Device, phase: str) -> Callable[[Device], int] | None:
        """The bus's callback, or else the driver's. Source: main.c:__device_suspend_noirq."""
        for pm in (dev.bus.pm if dev.bus is not None else None, dev.driver.pm if dev.driver is not None else None):
            found = _op(pm, phase)
            if found is not None:
                return found
        return None

    def dpm_suspend_noirq(self, phase: str = "freeze") -> int:
        """Call the devices' callbacks, youngest device first: 0, or the errno of the one that refused, all undone.

        :param phase: ``freeze`` (before the image is made) or ``poweroff`` (after).
        """
        for dev in reversed(tuple(self._kernel.driver.devices)):
            callback = self._callback(dev, phase)
            error = callback(dev) if callback is not None else 0
            if error:
                verb = "freeze" if phase == "freeze" else "hibernate"
                self._kernel.printk.dev_printk(KERN_ERR, dev, f"PM: failed to {verb} noirq: error {error}")
                self.dpm_resume_noirq("thaw")
                return error
            self._suspended.append(dev)
        return 0

    def dpm_resume_noirq(self, phase: str = "thaw") -> None:
        """Call the callbacks of the devices that were suspended, oldest first; an errno is only reported.

        :param phase: ``thaw`` (the image was made, or not) or ``restore`` (it runs again).
        """
        while self._suspended:
            dev = self._suspended.pop()
            callback = self._callback(dev, phase)
            error = callback(dev) if callback is not None else 0
            if error:
                self._kernel.printk.dev_printk(KERN_ERR, dev, f"PM: failed to {phase} noirq: error {error}")

    # processors and the core -----------------------------------------------------------------------------------

    def freeze_secondary_cpus(self) -> int:
        """Take all CPUs but the first offline: 0, or the errno of the one that stays. Source: kernel/cpu.c."""
        kernel = self._kernel
        kernel.printk.pr_info("Disabling non-boot CPUs ...")
        self._frozen_cpus.clear()
        for cpu in tuple(kernel.cpus.for_each_online_cpu())[1:]:
            error = kernel.cpuhp.cpu_down(cpu)
            if error:
                kernel.printk.pr_err(f"Error taking CPU{cpu} down: {error}")
                kernel.printk.pr_err("Non-boot CPUs are not disabled")
                return error
            self._frozen_cpus.append(cpu)
        return 0

    def thaw_secondary_cpus(self) -> None:
        """Bring back what :meth:`freeze_secondary_cpus` took. Source: kernel/cpu.c."""
        kernel = self._kernel
        if not self._frozen_cpus:
            return
        kernel.printk.pr_info("Enabling non-boot CPUs ...")
        for cpu in self._frozen_cpus:
            error = kernel.cpuhp.cpu_up(cpu)
            if error:
                kernel.printk.pr_warn(f"Error taking CPU{cpu} up: {error}")
            else:
                kernel.printk.pr_info(f"CPU{cpu} is up")
        self._frozen_cpus.clear()

    def create_image(self, phase: str = "thaw") -> int:
        """Stop everything, make an image (not modelled), and go on: 0 or a negative errno.

        :param phase: how the devices come back: ``thaw`` in the kernel that made the image, ``restore`` in the one
            that was started from it.

        Source: hibernate.c:create_image.
        """
        kernel = self._kernel
        error = self.dpm_suspend_noirq("freeze")
        if error:
            kernel.printk.pr_err("PM: hibernation: Some devices failed to power down, aborting")
            return error
        error = self.freeze_secondary_cpus()
        if not error:
            flags = kernel.irq.local_irq_save()
            error = self._syscore_suspend()
            if not error:
                for ops in self._syscore:
                    ops.resume()
            kernel.irq.local_irq_restore(flags)
        self.thaw_secondary_cpus()
        self.dpm_resume_noirq(phase)
        return error

    def _syscore_suspend(self) -> int:
        done: list[SyscoreOps] = []
        for ops in reversed(self._syscore):
            error = ops.suspend()
            if error:
                self._kernel.printk.pr_err("PM: hibernation: Some system devices failed to power down, aborting")
                for undo in reversed(done):
                    undo.resume()
                return error
            done.append(ops)
        return 0


def _op(pm: DevPmOps | None, phase: str) -> Callable[[Device], int] | None:
    if pm is None:
        return None
    return {
        "freeze": pm.freeze_noirq,
        "thaw": pm.thaw_noirq,
        "poweroff": pm.poweroff_noirq,
        "restore": pm.restore_noirq,
    }[phase]
