"""drivers/scsi/sd.c: the driver that binds disks; what a disk is and does is in :mod:`hvkernel.linux.scsi_disk`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.api.guest.device import BusType, DeviceDriver, ProbeType
from hvkernel.api.guest.errno import ENODEV
from hvkernel.api.guest.scsi import ScsiDevice
from hvkernel.linux import scsi_proto as proto
from hvkernel.linux.printk import KERN_INFO, KERN_NOTICE
from hvkernel.linux.scsi_disk import ScsiDisk

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel


class SdDriver(DeviceDriver):
    """The ``sd`` driver on the SCSI bus."""

    def __init__(self, kernel: Kernel, bus: BusType) -> None:
        super().__init__("sd", bus=bus, probe_type=ProbeType.PROBE_PREFER_ASYNCHRONOUS)
        self._kernel = kernel
        self._used: dict[int, ScsiDisk] = {}

    @staticmethod
    def disk_name(index: int) -> str:
        """sda .. sdz, sdaa ... Source: sd.c:sd_format_disk_name."""
        letters = ""
        index += 1
        while index:
            index, rest = divmod(index - 1, 26)
            letters = chr(ord("a") + rest) + letters
        return f"sd{letters}"

    def probe(self, sdev: ScsiDevice) -> int:
        """sd_probe()."""
        if sdev.type not in (proto.TYPE_DISK, proto.TYPE_MOD, proto.TYPE_RBC):
            return -ENODEV
        index = 0
        while index in self._used:
            index += 1
        sdkp = ScsiDisk(self._kernel, sdev, self.disk_name(index))
        sdkp.disk.major, sdkp.disk.minor = 8, index * 16
        self._used[index] = sdkp
        sdev.driver_data = sdkp
        sdkp.revalidate()
        self._kernel.block.add_disk(sdkp.disk)
        sdkp.printk(KERN_NOTICE, f"Attached SCSI {'removable ' if sdev.removable else ''}disk")
        return 0

    def remove(self, sdev: ScsiDevice) -> None:
        """sd_remove() and sd_shutdown()."""
        sdkp: ScsiDisk = sdev.driver_data
        self._kernel.block.del_gendisk(sdkp.disk)
        self.shutdown(sdev)
        for index, other in list(self._used.items()):
            if other is sdkp:
                del self._used[index]

    def shutdown(self, sdev: ScsiDevice) -> None:
        """Write the cache back."""
        sdkp: ScsiDisk | None = sdev.driver_data
        if sdkp is None or not sdkp.wce or not sdkp.media_present:
            return
        sdkp.printk(KERN_NOTICE, "Synchronizing SCSI cache")
        sdkp.synchronize()

    def rescan(self, sdev: ScsiDevice) -> None:
        """sd_rescan(): the capacity may have changed."""
        sdkp: ScsiDisk = sdev.driver_data
        before = sdkp.disk.capacity
        sdkp.revalidate()
        if sdkp.disk.capacity != before:
            self._kernel.printk.printk(
                KERN_INFO, f"{sdkp.disk.name}: detected capacity change from {before} to {sdkp.disk.capacity}"
            )
