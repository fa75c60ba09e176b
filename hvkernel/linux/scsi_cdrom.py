"""drivers/scsi/sr.c and sg.c, as far as a boot shows them: a CD-ROM drive is found and named, its medium is not
read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.device import BusType, DeviceDriver
from hvkernel.api.guest.errno import ENODEV
from hvkernel.api.guest.scsi import ScsiDevice
from hvkernel.linux import scsi_proto as proto
from hvkernel.linux.printk import KERN_DEBUG, KERN_INFO, KERN_NOTICE

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

LOAD_MECHANISMS: Final = ("caddy", "tray", "pop-up", "", "changer", "cartridge changer", "", "")
"""Source: sr.c:get_capabilities."""


class SrDriver(DeviceDriver):
    """The ``sr`` driver on the SCSI bus."""

    def __init__(self, kernel: Kernel, bus: BusType) -> None:
        super().__init__("sr", bus=bus)
        self._kernel = kernel
        self._used: dict[int, ScsiDevice] = {}
        self._cdrom = False

    def probe(self, sdev: ScsiDevice) -> int:
        """sr_probe()."""
        if sdev.type not in (proto.TYPE_ROM, 0x04):
            return -ENODEV
        index = 0
        while index in self._used:
            index += 1
        self._used[index] = sdev
        name = f"sr{index}"
        sdev.driver_data = name
        scsi = self._kernel.scsi
        scsi.sdev_printk(KERN_INFO, sdev, self._capabilities(sdev), name)
        if not self._cdrom:
            self._cdrom = True
            self._kernel.printk.pr_info("cdrom: Uniform CD-ROM driver Revision: 3.20")
        scsi.sdev_printk(KERN_DEBUG, sdev, f"Attached scsi CD-ROM {name}")
        return 0

    def _capabilities(self, sdev: ScsiDevice) -> str:
        """get_capabilities(): from mode page 2A, where the drive has it."""
        scsi = self._kernel.scsi
        scsi.execute(sdev, bytes(6))
        got = scsi.execute(sdev, bytes([proto.MODE_SENSE, 0, 0x2A, 0, 128, 0]), read=128)
        if got.result or len(got.data) < 128:
            return "scsi-1 drive"
        data = got.data
        at = 4 + data[3]
        if data[0] + 1 > 128 or at > data[0] + 1 or at + 16 > len(data):
            return "scsi-1 drive"
        page = data[at:]
        words = "".join(
            word
            for word, on in (
                ("writer ", page[3] & 0x01),
                ("dvd-ram ", page[3] & 0x20),
                ("cd/rw ", page[2] & 0x02),
                ("xa/form2 ", page[4] & 0x20),
                ("cdda ", page[5] & 0x01),
            )
            if on
        )
        write, read = (int.from_bytes(page[o : o + 2], "big") // 176 for o in (14, 8))
        return f"scsi3-mmc drive: {write}x/{read}x {words}{LOAD_MECHANISMS[page[6] >> 5]}"

    def remove(self, sdev: ScsiDevice) -> None:
        """sr_remove()."""
        for index, other in list(self._used.items()):
            if other is sdev:
                del self._used[index]


class ScsiGeneric:
    """sg: a class interface, so it sees every device whether a driver binds or not."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._next = 0

    def add(self, sdev: ScsiDevice) -> None:
        """sg_add_device()."""
        self._kernel.scsi.sdev_printk(KERN_NOTICE, sdev, f"Attached scsi generic sg{self._next} type {sdev.type}")
        self._next += 1
