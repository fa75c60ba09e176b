"""init/main.c, do_mounts.c, and what user space does in the initramfs: from the first instruction to "up".

User space here is only what loads modules: udev's coldplug (every device's MODALIAS, in the order in which the
devices were registered), then its uevent queue, one event at a time in the order of arrival, and the wait for the
root device.
That order is
*unspecified* by udev, whose workers run in parallel; one at a time in order is what makes a boot repeatable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.block import BlockError
from hvkernel.api.guest.device import Device
from hvkernel.api.guest.errno import ENXIO
from hvkernel.api.guest.sched import WaitQueueHead
from hvkernel.linux.printk import KERN_EMERG, KERN_WARNING

if TYPE_CHECKING:
    from hvkernel.linux.block import Disk
    from hvkernel.linux.kernel import Kernel
    from hvkernel.machine import Task

ROOT_DELAY: Final = 30
"""Seconds that the initramfs waits for the root device, unless ``rootdelay=`` says otherwise.
Source: Debian initramfs-tools, scripts/functions:get_fstype, scripts/local (ROOTDELAY defaults to 30)."""

LEVEL_TIME: Final = (
    ("pure", "arch_sync", 90_000),
    ("subsys", "subsys_sync", 10_000),
    ("fs", "rootfs", 20_000),
    ("device", "device_sync", 400_000),
    ("late", "late_sync", 30_000),
)
"""First and last level of a group of initcalls, and the microseconds that the group's initcalls which are not
modelled take; meanwhile other tasks run. *Unspecified*: taken from the time stamps of a real log (6.1 on Azure Gen2:
jiffies at
0.498, PTP at 0.586, clocksource switch at 0.600, acpi_pm at 0.619, end of the device level at 1.036, sched_clock at
1.072)."""

ROOT_PATH: Final = ("HYPERV", "HYPERV_STORAGE", "SCSI", "BLK_DEV_SD")
"""Kconfig symbols of the way to the root disk; one of them being ``m`` calls for an initramfs."""


class Init:
    """The boot thread and its state."""

    def __init__(
        self, kernel: Kernel, initrd: Iterable[str] | str | None, *, exact: bool = False, refused: str | None = None
    ) -> None:
        self._kernel = kernel
        self._exact = exact
        self._refused = refused
        self._initrd = initrd if initrd is None or isinstance(initrd, str) else tuple(initrd)
        if isinstance(self._initrd, str) and self._initrd != "all":
            raise ValueError(f'initrd is {self._initrd!r}; it is "all", a list of module names, or None')
        self.task: Task | None = None
        self.doing = "start_kernel"
        """What the boot was at; becomes part of a "hung" reason."""
        self._events: deque[tuple[str, dict[str, str]]] = deque()
        self._wait = WaitQueueHead()
        self.root: Disk | None = None

    # before the scheduler --------------------------------------------------------------------------------------

    def start_kernel(self) -> None:
        """init/main.c:start_kernel, as far as its parts are modelled."""
        k = self._kernel
        self.task = k.machine.current
        pr, arch = k.printk, k.arch
        k.irq.attach(k.cpus.cpus[0])
        k.cpuhp.boot_cpu_hotplug_init()
        pr.pr_notice(self.banner())
        pr.pr_info(f"Command line: {k.cmdline.text}")
        k.reboot.setup()
        dmi = k.firmware.dmi_setup(k.mm.memory)
        if dmi is not None:
            pr.pr_info(f"DMI: {dmi.line()}")
        arch.setup_arch()
        k.acpi.boot_table_init()
        self._setup_cpus()
        k.mm.mm_init()
        arch.setup_arch_late()
        arch.smp_prepare_boot_cpu()
        pr.pr_notice(f"Kernel command line: {k.cmdline.text}")
        arch.init_IRQ()
        k.irq.install_ipis()
        arch.time_init()
        k.cpus.this_cpu().vp.irq_enabled = True
        arch.late_time_init()
        k.clocksource.sched_clock_init()
        self.kernel_init()

    def banner(self) -> str:
        """linux_banner, with what the model knows: no compiler, no build host."""
        k = self._kernel
        flags = "SMP" + "".join(f" {f}" for f in ("PREEMPT_DYNAMIC", "PREEMPT", "PREEMPT_RT") if k.config.y(f))
        return f"Linux version {k.release.version} (hvkernel model) #1 {flags}"

    def _setup_cpus(self) -> None:
        k = self._kernel
        limit = 1
        if k.config.y("SMP") and not k.cmdline.has("nosmp"):
            text = k.config.value("NR_CPUS")
            limit = int(text) if text.isdigit() else 64
            limit = max(1, min(limit, k.cmdline.integer("nr_cpus", limit)))
        madt = k.acpi.madt_cpus() if k.acpi.available else ()
        entries = [(hw_id, enabled) for hw_id, enabled, _ in madt if k.arch.hw_id_valid(hw_id)]
        k.cpus.setup(entries, k.acpi.srat_nodes() if k.acpi.available else {}, limit)

    # after rest_init -------------------------------------------------------------------------------------------

    def kernel_init(self) -> None:
        """kernel_init_freeable(), then the root and the init process."""
        k = self._kernel
        k.scheduling = True
        self.doing = "smp_prepare_cpus"
        k.arch.smp_prepare_cpus(k.cpus.nr_cpu_ids)
        self.doing = "early initcalls"
        k.initcall.run("early", "early")
        self.doing = "smp_init"
        k.cpus.smp_init()
        self.doing = "initcalls"
        for first, last, others in LEVEL_TIME:
            k.initcall.run(first, last)
            k.sched.usleep_range(others, others)
        self.doing = "async_synchronize_full"
        if not self.has_initramfs():
            self.prepare_namespace()
        k.async_.async_synchronize_full()
        if self.has_initramfs():
            self.initramfs()
        self.userspace()

    def has_initramfs(self) -> bool:
        """An initramfs exists when the kernel can read one and something on the way to the root disk is a module."""
        return self._refused is None and self._is_given()

    def _is_given(self) -> bool:
        k = self._kernel
        return (
            self._initrd is not None
            and k.config.y("BLK_DEV_INITRD")
            and any(k.config.value(name) == "m" for name in ROOT_PATH)
        )

    def populate_rootfs(self) -> int:
        """rootfs_initcall. Source: init/initramfs.c:do_populate_rootfs, populate_initrd_image."""
        k = self._kernel
        if self._is_given():
            k.printk.pr_info("Trying to unpack rootfs image as initramfs...")
            why = f"compression method {self._refused} not configured"
            if self._refused is not None and k.config.y("BLK_DEV_RAM"):
                k.printk.pr_info(f"rootfs image is not initramfs ({why}); looks like an initrd")
            elif self._refused is not None:
                k.printk.printk(KERN_EMERG, f"Initramfs unpacking failed: {why}")
        return 0

    # a kernel alone --------------------------------------------------------------------------------------------

    def prepare_namespace(self) -> None:
        """Find the root device or panic. Source: init/do_mounts.c:prepare_namespace, mount_block_root."""
        k = self._kernel
        pr = k.printk
        self.doing = "prepare_namespace"
        delay = k.cmdline.integer("rootdelay", 0)
        if delay > 0:
            pr.pr_info(f"Waiting {delay} sec before mounting root device...")
            k.sched.msleep(delay * 1000)
        k.async_.async_synchronize_full()
        name = k.cmdline.get("root")
        disk = self.find_root()
        if disk is None and k.cmdline.has("rootwait") and name:
            pr.pr_info(f"Waiting for root device {name}...")
            self.doing = f"rootwait: waiting for root device {name}"
            while disk is None:
                k.sched.msleep(5)
                disk = self.find_root()
        if disk is not None and self.read_root(disk):
            return
        shown = name.removeprefix("/dev/") or "(null)"
        pr.printk(KERN_WARNING, f'VFS: Cannot open root device "{shown}" or unknown-block(0,0): error {-ENXIO}')
        pr.printk(KERN_WARNING, 'Please append a correct "root=" boot option; here are the available partitions:')
        for line in k.block.all_partitions():
            pr.printk(KERN_WARNING, line)
        k.reboot.panic("VFS: Unable to mount root fs on unknown-block(0,0)")

    def find_root(self) -> Disk | None:
        """The disk that ``root=`` names, as ``/dev/sda1`` or ``PARTUUID=…``; without one, the first disk there is."""
        name = self._kernel.cmdline.get("root")
        disks = self._kernel.block.disks
        if not name or name.startswith(("UUID=", "LABEL=", "/dev/mapper/", "/dev/disk/")):
            return disks[0] if disks else None
        if name.upper().startswith("PARTUUID="):
            wanted = name[9:].split("/", 1)[0].lower()
            return next((d for d in disks if any(p.partuuid.lower() == wanted for p in d.partitions)), None)
        wanted = name.removeprefix("/dev/")
        return next((d for d in disks if d.name == wanted or any(p.name == wanted for p in d.partitions)), None)

    def read_root(self, disk: Disk) -> bool:
        """Read sector 0; its partition table was read when the disk appeared."""
        try:
            self._kernel.block.read(disk, 0, 1)
        except BlockError:
            return False
        self.root = disk
        return True

    # user space ------------------------------------------------------------------------------------------------

    def initramfs(self) -> None:
        """/init of the initramfs: load modules, wait for the root device."""
        k = self._kernel
        k.printk.pr_info("Run /init as init process")
        names = self._initrd
        held: Iterable[str] = names if names is not None and names != "all" else ()
        k.module.set_available(None if names == "all" else held if self._exact else k.module.closure(held))
        self._listen()
        self.doing = "initramfs: coldplug"
        self._coldplug()
        self.doing = "initramfs: waiting for the root device"
        delay = k.cmdline.integer("rootdelay", ROOT_DELAY)
        deadline = k.timers.jiffies + delay * k.timers.HZ
        while True:
            self._settle()
            disk = self.find_root()
            if disk is not None and self.read_root(disk):
                return
            left = deadline - k.timers.jiffies
            if left <= 0:
                k.finish("hung", "initramfs: root device not found")
                k.sched.wait_event(self._wait, lambda: False)
            seen = len(k.block.disks)
            k.sched.wait_event_timeout(self._wait, partial(self._changed, seen), left)

    def userspace(self) -> None:
        """The real root: all modules are there, everything is coldplugged once more, then the system is up."""
        k = self._kernel
        self.doing = "user space"
        if not self.has_initramfs():
            k.printk.pr_info("Run /sbin/init as init process")
        k.module.set_available(None)
        self._listen()
        self._coldplug()
        self._settle()
        k.async_.async_synchronize_full()
        self._settle()
        k.finish("up", "")
        while True:
            k.sched.wait_event(self._wait, lambda: bool(self._events))
            self._settle()

    def _listen(self) -> None:
        if self._uevent not in self._kernel.driver.listeners:
            self._kernel.driver.listeners.append(self._uevent)

    def _uevent(self, action: str, dev: Device, env: dict[str, str]) -> None:
        del dev
        if action == "add" and "MODALIAS" in env:
            self._events.append((action, env))
            self._kernel.sched.wake_up_all(self._wait)

    def _changed(self, disks: int) -> bool:
        return bool(self._events) or len(self._kernel.block.disks) != disks

    def disk_added(self) -> None:
        """A disk appeared: whoever waits for the root looks again."""
        self._kernel.sched.wake_up_all(self._wait)

    def _coldplug(self) -> None:
        for dev in tuple(self._kernel.driver.devices):
            if not dev.registered:
                continue
            env = self._kernel.driver.uevent_env(dev, "add")
            if env is not None and "MODALIAS" in env:
                self._load(env)
            self._settle()

    def _settle(self) -> None:
        """udevadm settle: handle events until there are none."""
        while self._events:
            _, env = self._events.popleft()
            self._load(env)

    def _load(self, env: dict[str, str]) -> None:
        """udev's 80-drivers.rules: the modules of the alias, and sg for a SCSI device."""
        module = self._kernel.module
        module.load_alias(env["MODALIAS"])
        if env.get("DEVTYPE") == "scsi_device" and module.available("sg"):
            module.request_module("sg")

    def state(self) -> dict[str, Any]:
        """For reports."""
        return {"doing": self.doing, "root": self.root.name if self.root else None}
