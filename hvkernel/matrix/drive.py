"""Using what a guest has: every disk is written and read, by several processors at a time, and the bytes compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.block import BlockError
from hvkernel.linux.block import SECTOR

if TYPE_CHECKING:
    from hvkernel.api.host import DiskImage
    from hvkernel.linux.block import Disk
    from hvkernel.matrix.run import GuestRun

__all__ = ["drive_disks"]

FIRST: Final = 2048
"""First sector that is written to: behind the partition table of a blank disk, within its partition."""

GPT_BACKUP: Final = 33
"""Sectors at the end of a disk that are left alone: the backup of the table."""

AREA: Final = 256
"""Sectors for each processor; all that it writes fits in."""

WRITERS: Final = 4
"""Processors that write and read at the same time, at most: the first ones and the last."""

SIZES: Final = (1, 8, 137)
"""Sectors of one request: a sector, a 4 KiB page, and more than the largest page in a length that fits nothing. The
first processor writes all of them, the others one each."""


@dataclass(slots=True)
class _Task:
    disk: Disk
    image: DiskImage
    start: int
    data: tuple[bytes, ...]
    wrong: list[str]


def drive_disks(run: GuestRun, seed: str) -> Iterator[str]:
    """Write to all disks and read from them; yields what is wrong.

    Bytes that the guest writes must be in the image and come back; bytes that change in the image must be read. An
    image that is somebody's file is only read.

    :param seed: what the bytes are drawn from.
    """
    kernel, session = run.session.kernel, run.session
    online = tuple(kernel.cpus.for_each_online_cpu())
    cpus = online if len(online) <= WRITERS else (*online[: WRITERS - 1], online[-1])
    images = list(session.disks)
    rng = Random(seed)
    tasks = []
    for disk in kernel.block.disks:
        if not disk.capacity or disk.driver_name != "sd":
            continue
        image = _image_of(run, disk, images)
        if image is None:
            yield f"{disk.name}: sector 1 is that of no disk of the VM"
            continue
        images.remove(image)
        room = disk.capacity - GPT_BACKUP - AREA
        for number, cpu in enumerate(cpus):
            start = FIRST + number * AREA
            if number == len(cpus) - 1:
                start = max(start, room)
            if start < 0 or start > room:
                continue
            sizes = SIZES if number == 0 else (SIZES[number % len(SIZES)],)
            data = tuple(rng.randbytes(size * SECTOR) for size in sizes)
            task = _Task(disk, image, start, data, [])
            tasks.append(task)
            run.spawn(_write_and_read, kernel, task, name=f"drive {disk.name}", cpu=kernel.cpus.cpu(cpu))
    if images and kernel.block.disks:
        yield f"{len(images)} of {len(session.disks)} disks of the VM did not appear"
    run.wait("driving the disks")
    for task in tasks:
        yield from task.wrong


def _image_of(run: GuestRun, disk: Disk, images: list[DiskImage]) -> DiskImage | None:
    """Return the image behind a disk, known by its partition table's header: each blank disk has its own GUID."""
    kernel = run.session.kernel
    header = run.call(kernel.block.read, disk, 1, 1)
    size = disk.capacity * SECTOR
    return next((one for one in images if one.size == size and one.pread(SECTOR, SECTOR) == header), None)


def _write_and_read(kernel: Any, task: _Task) -> None:
    """A kernel thread."""
    try:
        if task.image.in_memory:
            _requests(kernel, task)
        else:
            _read(kernel, task)
    except BlockError as error:
        task.wrong.append(f"{task.disk.name}: {error.strerror}")


def _read(kernel: Any, task: _Task) -> None:
    at = task.start
    for count in map(len, task.data):
        stored = task.image.pread(count, at * SECTOR)
        found = kernel.block.read(task.disk, at, count // SECTOR)
        if found != stored:
            text = f"{task.disk.name}: sectors {at}+{count // SECTOR} were read, {_differ(stored, found)}"
            task.wrong.append(text)
        at += count // SECTOR


def _requests(kernel: Any, task: _Task) -> None:
    block, disk, image = kernel.block, task.disk, task.image
    at = task.start
    for data in task.data:
        block.write(disk, at, data)
        stored = image.pread(len(data), at * SECTOR)
        if stored != data:
            task.wrong.append(f"{disk.name}: sectors {at}+{len(data) // SECTOR} were written, {_differ(data, stored)}")
        at += len(data) // SECTOR
    at = task.start
    whole = bytes(SECTOR) + b"".join(task.data)[SECTOR:]
    image.pwrite(whole[:SECTOR], at * SECTOR)
    found = block.read(disk, at, len(whole) // SECTOR)
    if found != whole:
        task.wrong.append(f"{disk.name}: sectors {at}+{len(whole) // SECTOR} were read, {_differ(whole, found)}")
    if len(task.data) > 1:
        block.flush(disk)


def _differ(expected: bytes, found: bytes) -> str:
    if len(expected) != len(found):
        return f"{len(found)} bytes instead of {len(expected)}"
    first = next(at for at, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other)
    count = sum(one != other for one, other in zip(expected, found, strict=True))
    return f"{count} of {len(found)} bytes are wrong, from byte {first} on"
