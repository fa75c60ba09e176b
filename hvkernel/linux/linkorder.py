"""Where an object stands in the link order of vmlinux, which is the order of initcalls of one level.

Only directories and objects that the model has something in are listed; the order is that of the 6.1 Makefiles. An
object or directory that is not listed comes after the listed ones of its directory, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

MAKEFILES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "": tuple(
            "init usr arch kernel certs mm fs ipc security crypto block io_uring rust lib drivers sound samples net virt".split()
        ),
        "init": ("main", "version", "mounts", "noinitramfs", "initramfs", "calibrate", "init_task"),
        "arch/x86": tuple("coco entry events kvm xen platform hyperv realmode kernel mm crypto ia32 net pci power".split()),
        "arch/arm64": ("kernel", "mm", "net", "kvm", "xen", "hyperv", "crypto"),
        "arch/x86/hyperv": ("hv_init", "mmu", "nested", "irqdomain", "ivm", "hv_apic", "hv_proc", "hv_spinlock"),
        "arch/arm64/hyperv": ("hv_core", "mshyperv"),
        "kernel": tuple(
            "fork exec_domain panic cpu exit softirq resource sysctl ptrace signal sys umh workqueue pid params "
            "kthread notifier ksysfs cred reboot async smpboot sched locking power printk irq rcu dma entry module "
            "time smp up".split()
        ),
        "kernel/sched": ("core", "fair", "build_policy", "build_utility", "clock"),
        "kernel/time": tuple(
            "time timer hrtimer timekeeping ntp clocksource jiffies timer_list clockevents tick-common sched_clock "
            "tick-oneshot tick-sched".split()
        ),
        "block": ("bdev", "bio", "elevator", "blk-core", "blk-mq", "ioctl", "genhd", "partitions"),
        "drivers": tuple(
            "irqchip bus phy pinctrl gpio pwm pci rapidio video idle char/ipmi acpi pnp amba clk dma soc virtio vdpa xen "
            "regulator reset tty char iommu gpu connector parport base block misc mfd nfc nvdimm dax dma-buf cxl macintosh "
            "scsi nvme ata target mtd spi net message firewire uio vfio cdrom auxdisplay pcmcia usb input/serio "
            "input/gameport input rtc i2c i3c media pps ptp w1 power hwmon thermal watchdog md bluetooth edac opp cpufreq "
            "cpuidle mmc ufs memstick leds infiniband firmware crypto clocksource dca hid of vhost staging platform mailbox "
            "virt hv devfreq extcon memory iio ntb powercap perf ras thunderbolt hwtracing android nvmem".split()
        ),
        "drivers/acpi": ("tables", "blacklist", "acpi", "bus", "scan", "acpica", "processor", "numa"),
        "drivers/base": ("component", "core", "bus", "dd", "driver", "class", "platform", "cpu", "firmware", "init"),
        "drivers/gpu": ("host1x", "drm", "vga"),
        "drivers/hv": (
            "hv_vmbus", "vmbus_drv", "hv", "connection", "channel", "channel_mgmt", "ring_buffer", "hv_trace", "hv_debugfs",
            "hv_utils", "hv_util", "hv_kvp", "hv_snapshot", "hv_fcopy", "hv_utils_transport", "hv_balloon", "hv_common",
        ),
        "drivers/pci": ("access", "bus", "probe", "host-bridge", "pci", "pci-driver", "msi", "controller"),
        "drivers/pci/controller": ("pci-hyperv", "pci-hyperv-intf"),
        "drivers/scsi": (
            "scsi_mod", "scsi_common", "scsi_transport_fc", "hv_storvsc", "storvsc_drv", "st", "sd_mod", "sr_mod", "sg", "ch",
            "scsi_debug",
        ),
        "drivers/video": ("console", "logo", "backlight", "fbdev"),
    }
)  # fmt: skip
"""Directory to the names below it, in order. ``char/ipmi`` and the like are directories that a parent lists itself.
Source: Kbuild, init/Makefile, arch/x86/Kbuild, arch/arm64/Kbuild, drivers/Makefile and those of the directories, v6.1.192."""

_RANKS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {folder: MappingProxyType({name: i for i, name in enumerate(names)}) for folder, names in MAKEFILES.items()}
)
_LAST: Final = 1 << 16

LinkRank = tuple[tuple[int, str], ...]


def link_rank(path: str) -> LinkRank:
    """The sort key of an object file such as ``drivers/scsi/storvsc_drv.o``.

    :raises ValueError: when it is not a relative path that ends in ``.o``.
    """
    if not path.endswith(".o") or path.startswith("/"):
        raise ValueError(f"object path {path!r} is not a relative path of an object file (drivers/x/y.o)")
    parts = path[:-2].split("/")
    rank: list[tuple[int, str]] = []
    folder, at = "", 0
    while at < len(parts):
        ranks = _RANKS.get(folder, {})
        pair = "/".join(parts[at : at + 2])
        step = 2 if pair in ranks and at + 2 < len(parts) else 1
        name = pair if step == 2 else parts[at]
        rank.append((ranks.get(name, _LAST), name))
        at += step
        folder = "/".join(parts[:at])
    return tuple(rank)
