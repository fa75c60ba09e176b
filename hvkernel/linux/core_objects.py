"""The initcalls and modules of the slice itself, each at the level and place that 6.1 gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.linux import scsi_objects

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel


def register(kernel: Kernel) -> None:
    """Enter them into ``kernel``; what a symbol rules out is left out when the image is linked."""
    add = kernel.initcall.add
    cs = kernel.clocksource
    add("core", "kernel/time/jiffies.o", cs.register_jiffies, "init_jiffies_clocksource")
    add("subsys", "drivers/acpi/bus.o", lambda: _acpi_init(kernel), "acpi_init")
    add("fs", "kernel/time/clocksource.o", cs.clocksource_done_booting, "clocksource_done_booting")
    add("rootfs", "init/initramfs.o", kernel.init.populate_rootfs, "populate_rootfs")
    add("late", "kernel/sched/build_utility.o", cs.sched_clock_init_late, "sched_clock_init_late")
    scsi_objects.register(kernel)


def _acpi_init(kernel: Kernel) -> int:
    return kernel.acpi.acpi_init() if kernel.config.value("ACPI") != "n" else 0
