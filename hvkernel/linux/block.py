"""blkdev.h, genhd.h: disks, their partitions, and reading through the driver.

There is no page cache: every read goes to the device. Only the partition scan keeps the pages it has read, as the
kernel's does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hvkernel.api.guest.block import BlockError, Gendisk, Partition
from hvkernel.api.guest.errno import EINVAL, EIO, ENOSPC
from hvkernel.linux import partitions
from hvkernel.linux.printk import KERN_INFO, KERN_WARNING

if TYPE_CHECKING:
    from hvkernel.api.guest.device import Device
    from hvkernel.linux.kernel import Kernel

SECTOR: Final = 512


class BlockDriver(Protocol):
    """What stands behind a disk. Sectors are 512 bytes; every method blocks and raises BlockError."""

    def read_sectors(self, sector: int, count: int) -> bytes: ...
    def write_sectors(self, sector: int, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def discard_sectors(self, sector: int, count: int) -> None: ...


class Disk:
    """struct gendisk."""

    __slots__ = (
        "capacity",
        "driver",
        "driver_name",
        "logical_block_size",
        "major",
        "minor",
        "name",
        "native_capacity",
        "parent",
        "partitions",
        "read_only",
    )

    def __init__(self, name: str, capacity: int, logical_block_size: int, driver: BlockDriver) -> None:
        self.name = name
        self.capacity = capacity
        self.logical_block_size = logical_block_size
        self.driver = driver
        self.driver_name = ""
        self.parent: Device | None = None
        self.major = 8
        self.minor = 0
        self.partitions: tuple[Partition, ...] = ()
        self.read_only = False
        self.native_capacity = False
        """GD_NATIVE_CAPACITY: the device was asked once to show all that it has."""

    def __repr__(self) -> str:
        return f"<Disk {self.name}, {self.capacity} sectors>"


class Block:
    """``kernel.block``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._disks: list[Disk] = []

    @property
    def disks(self) -> tuple[Disk, ...]:
        """By the order of their appearance."""
        return tuple(self._disks)

    def lookup(self, name: str) -> Disk | None:
        return next((disk for disk in self._disks if disk.name == name), None)

    def add_disk(self, disk: Disk) -> None:
        """device_add_disk(): read the partition table, then let everybody see it."""
        self._disks.append(disk)
        if disk.capacity:
            self.rescan_partitions(disk)
        self._kernel.init.disk_added()

    def del_gendisk(self, disk: Disk) -> None:
        """The disk goes away."""
        if disk in self._disks:
            self._disks.remove(disk)
        disk.partitions = ()

    # requests --------------------------------------------------------------------------------------------------

    def _check(self, disk: Gendisk, sector: int, count: int) -> Disk:
        real = next((d for d in self._disks if d is disk), None)
        if real is None:
            raise BlockError(EIO, f"{disk.name}: no such disk")
        if sector < 0 or count < 0 or sector + count > real.capacity:
            raise BlockError(
                EIO,
                f"{disk.name}: attempt to access beyond end of device: sectors {sector} to {sector + count}, "
                f"limit {real.capacity}",
            )
        ratio = real.logical_block_size // SECTOR
        if sector % ratio or count % ratio:
            raise BlockError(
                EINVAL, f"{disk.name}: sectors {sector}+{count} are not whole blocks of {real.logical_block_size} bytes"
            )
        return real

    def read(self, disk: Gendisk, sector: int, count: int) -> bytes:
        """Read sectors of 512 bytes. :raises BlockError: outside the disk, not whole blocks, or failed by the
        device."""
        real = self._check(disk, sector, count)
        return real.driver.read_sectors(sector, count) if count else b""

    def write(self, disk: Gendisk, sector: int, data: bytes) -> None:
        """Write whole sectors."""
        if len(data) % SECTOR:
            raise BlockError(EINVAL, f"{disk.name}: {len(data)} bytes are not whole sectors of {SECTOR}")
        real = self._check(disk, sector, len(data) // SECTOR)
        if real.read_only:
            raise BlockError(EIO, f"{disk.name}: is read-only")
        if data:
            real.driver.write_sectors(sector, bytes(data))

    def flush(self, disk: Gendisk) -> None:
        """Make what was written durable."""
        self._check(disk, 0, 0).driver.flush()

    def discard(self, disk: Gendisk, sector: int, count: int) -> None:
        """Tell the device that sectors are not needed."""
        real = self._check(disk, sector, count)
        if count:
            real.driver.discard_sectors(sector, count)

    # partitions ------------------------------------------------------------------------------------------------

    def rescan_partitions(self, disk: Disk) -> None:
        """Source: block/partitions/core.c:bdev_disk_changed: again, once, after the native capacity was asked for."""
        disk.partitions = ()
        while not self._add_partitions(disk):
            disk.partitions = ()

    def _add_partitions(self, disk: Disk) -> bool:
        """blk_add_partitions(); False: -EAGAIN, the device has been told to show its native capacity."""
        pr = self._kernel.printk
        try:
            found = self._check_partition(disk)
        except OSError as error:
            pr.printk(KERN_INFO, f" {disk.name}: unable to read partition table")
            return error.errno != ENOSPC or not self._unlock_native_capacity(disk, "partition table beyond EOD")
        if found is None:
            return True
        for warning in found.warnings:
            pr.printk(KERN_WARNING, warning)
        pr.printk(KERN_INFO, f" {disk.name}:{found.text}")
        if found.beyond and self._unlock_native_capacity(disk, "partition table partially beyond EOD"):
            return False
        return all(self._add_partition(disk, number, *found.parts[number]) for number in sorted(found.parts))

    def _unlock_native_capacity(self, disk: Disk, what: str) -> bool:
        """disk_unlock_native_capacity() with the line that it ends: True the first time."""
        unlock = not disk.native_capacity
        disk.native_capacity = True
        end = "enabling native capacity" if unlock else "truncated"
        self._kernel.printk.printk(KERN_WARNING, f"{disk.name}: {what}, {end}")
        return unlock

    def _check_partition(self, disk: Disk) -> partitions.Parsed | None:
        kernel = self._kernel
        page = max(kernel.mm.PAGE_SIZE, disk.logical_block_size) // SECTOR
        cache: dict[int, bytes] = {}

        def read(sector: int) -> bytes:
            index = sector // page
            data = cache.get(index)
            if data is None:
                first = index * page
                data = cache[index] = self.read(disk, first, min(page, disk.capacity - first))
            at = sector % page * SECTOR
            return data[at : at + SECTOR]

        return partitions.check_partition(
            disk.name,
            disk.capacity,
            disk.logical_block_size,
            read,
            efi=kernel.config.y("EFI_PARTITION"),
            msdos=kernel.config.y("MSDOS_PARTITION"),
            force_gpt=kernel.cmdline.has("gpt"),
        )

    def _add_partition(self, disk: Disk, number: int, start: int, size: int, uuid: str) -> bool:
        """blk_add_partition(): a sum beyond 64 bits is not seen to reach beyond the end, as in the kernel."""
        if not size:
            return True
        if start >= disk.capacity:
            return not self._unlock_native_capacity(disk, f"p{number} start {start} is beyond EOD")
        if (start + size) % (1 << 64) > disk.capacity:
            if self._unlock_native_capacity(disk, f"p{number} size {size} extends beyond EOD"):
                return False
            size = disk.capacity - start
        stem = f"{disk.name}p" if disk.name[-1].isdigit() else disk.name
        disk.partitions = (*disk.partitions, Partition(number, f"{stem}{number}", start, size, uuid))
        return True

    def all_partitions(self) -> list[str]:
        """The lines of printk_all_partitions()."""
        lines = []
        for disk in self._disks:
            if not disk.capacity:
                continue
            driver = f"driver: {disk.driver_name}" if disk.driver_name else "(driver?)"
            devt = f"{disk.major:02x}{disk.minor:02x}"
            lines.append(f"{devt:<9} {disk.capacity >> 1:10d} {disk.name}  {driver}")
            for part in disk.partitions:
                devt = f"{disk.major:02x}{disk.minor + part.number:02x}"
                lines.append(f"  {devt:<9} {part.sectors >> 1:10d} {part.name} {part.partuuid}")
        return lines
