"""blkdev.h, genhd.h: block devices as far as a disk driver and the root mount need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .device import Device


class Partition:
    """One partition of a disk; sectors of 512 bytes."""

    __slots__ = ("name", "number", "partuuid", "sectors", "start")

    def __init__(self, number: int, name: str, start: int, sectors: int, partuuid: str = "") -> None:
        self.number = number
        self.name = name
        self.start = start
        self.sectors = sectors
        self.partuuid = partuuid

    def __repr__(self) -> str:
        return f"Partition({self.name}, start={self.start}, sectors={self.sectors})"


class Gendisk(Protocol):
    """A whole disk."""

    @property
    def name(self) -> str:
        """As ``sda``."""
        ...

    @property
    def capacity(self) -> int:
        """Sectors of 512 bytes."""
        ...

    @property
    def logical_block_size(self) -> int: ...
    @property
    def parent(self) -> Device | None:
        """The device that it is the disk of, as a ScsiDevice (disk_to_dev(disk)->parent)."""
        ...

    @property
    def partitions(self) -> tuple[Partition, ...]: ...


class BlockError(OSError):
    """A request that the device failed. ``errno`` is the kernel's (EIO, ...)."""


class Block(Protocol):
    """``kernel.block``."""

    @property
    def disks(self) -> tuple[Gendisk, ...]: ...
    def lookup(self, name: str) -> Gendisk | None: ...
    def read(self, disk: Gendisk, sector: int, count: int) -> bytes:
        """Read ``count`` sectors of 512 bytes through the driver. :raises BlockError: when the device fails it."""
        ...

    def write(self, disk: Gendisk, sector: int, data: bytes) -> None: ...
    def flush(self, disk: Gendisk) -> None: ...
    def discard(self, disk: Gendisk, sector: int, count: int) -> None: ...


__all__ = ["Block", "BlockError", "Gendisk", "Partition"]
