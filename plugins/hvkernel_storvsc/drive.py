"""How ``hvkernel matrix`` uses storage: every unit of every controller, by several processors at a time.

A disk is written and read, and the bytes are compared with those of its image; an image that is somebody's file is only
read. A DVD is read. A drive without a medium has to say so, and where nothing is attached nothing may be found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import shake_128
from random import Random
from typing import TYPE_CHECKING, Final

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.abi.vmbus import VmbusChannelState
from hvkernel.api.guest import BlockError, Gendisk, Kernel, ScsiDevice, ScsiHost
from hvkernel.api.host import SECTOR_SIZE, DiskImage
from hvkernel.api.matrix import Drive, Driven, Driving

from . import vsp_scsi as scsi
from .vsp_disk import HardDisk
from .vsp_dvd import BLOCK, DvdDrive

if TYPE_CHECKING:
    from .vsp import StorageController

__all__ = ["DRIVES"]

FIRST: Final = 2048
"""First sector that is written to: behind the partition table of a blank disk, within its partition."""

GPT_BACKUP: Final = 33
"""Sectors at the end of a disk that are left alone: the backup of the table."""

AREA: Final = 256
"""Sectors for each processor; all that it writes fits in."""

SIZES: Final = (1, 8, 137)
"""Sectors of one request: a sector, a 4 KiB page, and more than the largest page in a length that fits nothing. The
first processor writes all of them, the others one each."""

DVD_BLOCKS: Final = (1, 37)
"""Blocks of one request: one, and more than the largest page holds."""

LUNS: Final = 64
"""Places of a controller that may be looked at (storvsc_drv.c: STORVSC_MAX_LUNS_PER_TARGET)."""


def drive(driving: Driving) -> Iterator[str]:
    """Drive the controllers that have the driver."""
    hosts = {host.parent: host for host in driving.kernel.scsi.hosts}
    for device in driving.devices:
        host = hosts.get(device.guest)
        if host is None:
            yield f"{device.name} has a driver, and there is no SCSI host of it"
            continue
        yield from _channels(device)
        controller: StorageController = device.host
        if not controller.units:
            driving.spawn(device, _empty, driving.kernel, device, host, driving.rng.randrange(LUNS))
        for place, unit in controller.units.items():
            sdev = driving.kernel.scsi.scsi_device_lookup(host, *place)
            if sdev is None:
                yield f"{device.name}: the guest has not found the {type(unit).__name__} at {':'.join(map(str, place))}"
            elif isinstance(unit, HardDisk):
                yield from _disk(driving, device, sdev, unit.image)
            elif isinstance(unit, DvdDrive):
                _dvd(driving, device, sdev, unit.image)


def _channels(device: Driven) -> Iterator[str]:
    """A driver that has asked for sub-channels opens all that it is offered (storvsc_drv.c: handle_sc_creation)."""
    primary = device.guest.channel
    if primary.sc_creation_callback is None:
        return
    for channel in primary.sc_list:
        if channel.state != VmbusChannelState.CHANNEL_OPENED_STATE:
            yield f"{device.name}: sub-channel {channel.offermsg.child_relid} is not open"


def _empty(kernel: Kernel, device: Driven, host: ScsiHost, lun: int) -> Iterator[str]:
    """A kernel thread: look where nothing is."""
    if kernel.scsi.scsi_add_device(host, 0, 0, lun) == 0:
        yield f"{device.name}: the guest has found a unit at {lun} of an empty controller"


def _differ(expected: bytes, found: bytes) -> str:
    if len(expected) != len(found):
        return f"{len(found)} bytes instead of {len(expected)}"
    first = next(at for at, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other)
    count = sum(one != other for one, other in zip(expected, found, strict=True))
    return f"{count} of {len(found)} bytes are wrong, from byte {first} on"


# disks ---------------------------------------------------------------------------------------------------------


def _disk(driving: Driving, device: Driven, sdev: ScsiDevice, image: DiskImage) -> Iterator[str]:
    disk = next((one for one in driving.kernel.block.disks if one.parent is sdev), None)
    if disk is None or disk.capacity * SECTOR_SIZE != image.size:
        found = "is no block device" if disk is None else f"has {disk.capacity} sectors"
        yield f"{device.name}: the disk at {sdev.name}, {image.size // SECTOR_SIZE} sectors, {found}"
        return
    room = disk.capacity - GPT_BACKUP - AREA
    for number, cpu in enumerate(driving.cpus):
        start = FIRST + number * AREA
        if number == len(driving.cpus) - 1:
            start = max(start, room)
        if start > room:
            start = max(room, 0)
            if number:
                continue
        sizes = SIZES if number == 0 else (SIZES[number % len(SIZES)],)
        if not image.in_memory:
            driving.spawn(device, _read, driving.kernel, disk, image, start, sizes, cpu=cpu)
            continue
        data = [_bytes(driving.rng, size * SECTOR_SIZE) for size in sizes]
        driving.spawn(device, _write_and_read, driving.kernel, disk, image, start, data, cpu=cpu)


def _bytes(rng: Random, count: int) -> bytes:
    """Random bytes, twice as fast as ``randbytes()`` makes them."""
    return shake_128(rng.randbytes(16)).digest(count)


def _read(kernel: Kernel, disk: Gendisk, image: DiskImage, at: int, sizes: tuple[int, ...]) -> Iterator[str]:
    """A kernel thread."""
    for count in sizes:
        count = min(count, disk.capacity - at)
        yield from _compare(kernel, disk, image.pread(count * SECTOR_SIZE, at * SECTOR_SIZE), at)
        at += count


def _write_and_read(kernel: Kernel, disk: Gendisk, image: DiskImage, start: int, parts: list[bytes]) -> Iterator[str]:
    """A kernel thread. What the guest writes must be in the image; what changes in the image must be read."""
    at = start
    try:
        for data in parts:
            kernel.block.write(disk, at, data)
            stored = image.pread(len(data), at * SECTOR_SIZE)
            if stored != data:
                count = len(data) // SECTOR_SIZE
                yield f"{disk.name}: sectors {at}+{count} were written, {_differ(data, stored)}"
            at += len(data) // SECTOR_SIZE
        if len(parts) > 1:
            kernel.block.flush(disk)
    except BlockError as error:
        yield f"{disk.name}: {error.strerror}"
        return
    image.pwrite(bytes(SECTOR_SIZE), start * SECTOR_SIZE)
    yield from _compare(kernel, disk, bytes(SECTOR_SIZE) + b"".join(parts)[SECTOR_SIZE:], start)


def _compare(kernel: Kernel, disk: Gendisk, stored: bytes, at: int) -> Iterator[str]:
    """Read as many sectors as ``stored`` has."""
    count = len(stored) // SECTOR_SIZE
    try:
        found = kernel.block.read(disk, at, count)
    except BlockError as error:
        yield f"{disk.name}: {error.strerror}"
        return
    if found != stored:
        yield f"{disk.name}: sectors {at}+{count} were read, {_differ(stored, found)}"


# DVDs ----------------------------------------------------------------------------------------------------------


def _dvd(driving: Driving, device: Driven, sdev: ScsiDevice, image: DiskImage | None) -> None:
    """The last of the processors reads: the others have the disks."""
    cpu = driving.cpus[-1]
    if image is None:
        driving.spawn(device, _without_medium, driving.kernel, sdev, cpu=cpu)
        return
    blocks = image.size // BLOCK
    reads = [(driving.rng.randrange(max(blocks - count, 0) + 1), min(count, blocks)) for count in DVD_BLOCKS]
    driving.spawn(device, _medium, driving.kernel, sdev, image, [*reads, (blocks - 1, 1)], cpu=cpu)


def _without_medium(kernel: Kernel, sdev: ScsiDevice) -> Iterator[str]:
    """A kernel thread."""
    got = kernel.scsi.execute(sdev, _read_10(0, 1), read=BLOCK)
    sense = (got.sense.key, (got.sense.asc, got.sense.ascq)) if got.sense is not None else None
    if sense != (scsi.NOT_READY, scsi.MEDIUM_NOT_PRESENT_TRAY_OPEN):
        yield f"{sdev.name}: a read without a medium ended with {got.result:#x}, sense {sense}"


def _medium(kernel: Kernel, sdev: ScsiDevice, image: DiskImage, reads: list[tuple[int, int]]) -> Iterator[str]:
    """A kernel thread."""
    got = kernel.scsi.execute(sdev, bytes([scsi.READ_CAPACITY, *bytes(9)]), read=8)
    capacity = struct.unpack(">II", got.data) if got.data else None
    if capacity != (image.size // BLOCK - 1, BLOCK):
        yield f"{sdev.name}: the last block and the block's size are {capacity}, the medium has {image.size} bytes"
    for first, count in reads:
        stored = image.pread(count * BLOCK, first * BLOCK)
        got = kernel.scsi.execute(sdev, _read_10(first, count), read=count * BLOCK)
        if got.result:
            yield f"{sdev.name}: the read of blocks {first}+{count} ended with {got.result:#x}"
        elif got.data != stored:
            yield f"{sdev.name}: blocks {first}+{count} were read, {_differ(stored, got.data)}"


def _read_10(first: int, count: int) -> bytes:
    return struct.pack(">BxIxHx", scsi.READ_10, first, count)


DRIVES: Final = (
    Drive(
        "storage-data",
        (HV_SCSI_GUID, HV_IDE_GUID),
        drive,
        "What the guest writes to a disk is in its image, and what is in the image is what it reads; so with a DVD.",
    ),
)
