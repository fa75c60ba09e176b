"""Partition tables: GPT and MS-DOS. Pure functions on sectors; what is printed comes back as text.

Source: block/partitions/core.c:check_partition, efi.c, msdos.c. BSD, Solaris and other tables inside MS-DOS
partitions are not modelled: such a partition is shown without its slices.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from types import MappingProxyType
from typing import Final
from uuid import UUID

from hvkernel.api.guest.errno import EIO, ENOSPC

ReadSector = Callable[[int], bytes]
"""512 bytes of a sector; raises OSError when the device fails."""

DISK_MAX_PARTS: Final = 256
"""Source: include/linux/genhd.h; the table has room for 255."""
MAX_LOGICAL_LINKS: Final = 100
"""Links without a data partition after which an extended chain counts as a loop. Source: msdos.c:parse_extended."""
KMALLOC_MAX_SIZE: Final = 1 << 22
"""Largest entry array that is read. Source: efi.c:is_gpt_valid (KMALLOC_MAX_SIZE with 4 KiB pages)."""

_GPT: Final = Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = Struct("<16s16sQQQ72s")
_MBR_ENTRY: Final = Struct("<B3sB3sII")
_GPT_SIGNATURE: Final = b"EFI PART"
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_GPT_TYPE: Final = 0xEE
_DISK_MANAGERS: Final = MappingProxyType({0x54: "[DM]", 0x55: "[EZD]"})
_U64: Final = (1 << 64) - 1


@dataclass(slots=True)
class Parsed:
    """What a table says; sectors of 512 bytes."""

    text: str
    """What follows `` sda:`` in the log, as `` sda1 sda2``."""
    parts: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    """Partition number to (start, sectors, uuid)."""
    warnings: list[str] = field(default_factory=list)
    beyond: bool = False
    """A part of the table lies beyond the end of the device."""


class _Scan:
    """struct parsed_partitions."""

    def __init__(self, name: str, capacity: int, block: int, read: ReadSector) -> None:
        self.name = "p" if name[-1].isdigit() else name
        self.capacity = capacity
        self.block = block
        """Logical block size in bytes."""
        self.read = read
        self.out = Parsed("")
        self.last_lba = ((capacity * 512 & _U64) // block - 1) & _U64
        """Source: efi.c:last_lba, in 64 bits as bdev_nr_bytes() counts."""

    def sector(self, n: int) -> bytes | None:
        """read_part_sector(): None past the end (remembered) or when the device fails."""
        if n >= self.capacity:
            self.out.beyond = True
            return None
        try:
            return self.read(n)
        except OSError:
            return None

    def put(self, number: int, start: int, size: int, uuid: str = "") -> None:
        """put_partition()."""
        if number < DISK_MAX_PARTS:
            self.out.parts[number] = (start, size, uuid)
            self.out.text += f" {self.name}{number}"


def check_partition(
    name: str,
    capacity: int,
    block: int,
    read: ReadSector,
    *,
    efi: bool = True,
    msdos: bool = True,
    force_gpt: bool = False,
) -> Parsed | None:
    """Read the table of a disk. None: no table that these parsers know.

    :param name: disk name. :param capacity: sectors of 512 bytes. :param block: logical block size in bytes.
    :param efi: CONFIG_EFI_PARTITION. :param msdos: CONFIG_MSDOS_PARTITION.
    :param force_gpt: ``gpt`` on the command line: no protective MBR is needed, the alternate header will do.
    :raises OSError: nothing was recognised and ENOSPC, the table reaches beyond the end, or EIO, sector 0 cannot be
        read.
    """
    scan = _Scan(name, capacity, block, read)
    if efi and _efi_partition(scan, force_gpt):
        return scan.out
    found = _msdos_partition(scan, efi) if msdos else 0
    if found > 0:
        return scan.out
    if scan.out.beyond:
        raise OSError(ENOSPC, f"{name}: the partition table reaches beyond the end of the device")
    if found < 0:
        raise OSError(EIO, f"{name}: sector 0 cannot be read")
    return None


# GPT -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Header:
    raw: tuple[bytes, int, int, int, int, int, int, int, int, bytes, int, int, int, int]

    @property
    def my_lba(self) -> int:
        return self.raw[5]

    @property
    def alternate_lba(self) -> int:
        return self.raw[6]

    @property
    def first_usable_lba(self) -> int:
        return self.raw[7]

    @property
    def last_usable_lba(self) -> int:
        return self.raw[8]

    @property
    def disk_guid(self) -> bytes:
        return self.raw[9]

    @property
    def entry_lba(self) -> int:
        return self.raw[10]

    @property
    def entries(self) -> int:
        return self.raw[11]

    @property
    def entry_size(self) -> int:
        return self.raw[12]

    @property
    def entry_crc(self) -> int:
        return self.raw[13]


def _read_lba(scan: _Scan, lba: int, count: int) -> bytes | None:
    """``count`` bytes from logical block ``lba`` on; None when they are not all there."""
    if lba > scan.last_lba:
        return None
    sector = lba * (scan.block // 512)
    out = bytearray()
    while len(out) < count:
        data = scan.sector(sector)
        if data is None:
            return None
        out += data
        sector += 1
    return bytes(out[:count])


def _gpt(scan: _Scan, lba: int) -> tuple[_Header, bytes] | None:
    """Header and entry array at ``lba``, when every check of is_gpt_valid() passes."""
    raw = _read_lba(scan, lba, scan.block)
    if raw is None:
        return None
    header = _Header(_GPT.unpack_from(raw))
    size, crc = header.raw[2], header.raw[3]
    if header.raw[0] != _GPT_SIGNATURE or not _GPT.size <= size <= scan.block:
        return None
    zeroed = bytearray(raw[:size])
    zeroed[16:20] = bytes(4)
    last = scan.last_lba
    if zlib.crc32(zeroed) != crc or header.my_lba != lba:
        return None
    if header.first_usable_lba > last or not header.first_usable_lba <= header.last_usable_lba <= last:
        return None
    total = header.entries * header.entry_size
    if header.entry_size != _ENTRY.size or not 0 < total <= KMALLOC_MAX_SIZE:
        return None
    entries = _read_lba(scan, header.entry_lba, total)
    if entries is None or zlib.crc32(entries) != header.entry_crc:
        return None
    return header, entries


def _protective_mbr(scan: _Scan) -> bool:
    sector = scan.sector(0)
    if sector is None or sector[510:512] != b"\x55\xaa":
        return False
    records = [_MBR_ENTRY.unpack_from(sector, 0x1BE + 16 * n) for n in range(4)]
    return any(record[2] == _GPT_TYPE and record[4] == 1 for record in records)


def _compare(first: _Header, second: _Header, last: int, warn: Callable[[str], None]) -> None:
    """Source: efi.c:compare_gpts."""
    before = [0]

    def differ(text: str, a: int, b: int) -> None:
        if a != b:
            before[0] += 1
            warn(text)
            warn(f"GPT:{_s64(a)} != {_s64(b)}")

    differ("GPT:Primary header LBA != Alt. header alternate_lba", first.my_lba, second.alternate_lba)
    differ("GPT:Primary header alternate_lba != Alt. header my_lba", first.alternate_lba, second.my_lba)
    differ("GPT:first_usable_lbas don't match.", first.first_usable_lba, second.first_usable_lba)
    differ("GPT:last_usable_lbas don't match.", first.last_usable_lba, second.last_usable_lba)
    if first.disk_guid != second.disk_guid:
        before[0] += 1
        warn("GPT:disk_guids don't match.")
    for field_name, a, b in (
        ("num_partition_entries don't match: ", first.entries, second.entries),
        ("partition_entry_array_crc32 values don't match: ", first.entry_crc, second.entry_crc),
    ):
        if a != b:
            before[0] += 1
            warn(f"GPT:{field_name}{a:#x} != {b:#x}")
    differ("GPT:Primary header thinks Alt. header is not at the end of the disk.", first.alternate_lba, last)
    differ("GPT:Alternate GPT header not at the end of the disk.", second.my_lba, last)
    if before[0]:
        warn("GPT: Use GNU Parted to correct GPT errors.")


def _s64(value: int) -> int:
    """A u64 as %lld prints it."""
    return value - (1 << 64) if value >> 63 else value


def _find_valid_gpt(scan: _Scan, force: bool) -> tuple[_Header, bytes] | None:
    """The table to use. Source: efi.c:find_valid_gpt; without ``gpt`` the alternate counts only with a primary."""
    if not force and not _protective_mbr(scan):
        return None
    warn = scan.out.warnings.append
    primary = _gpt(scan, 1)
    alternate = _gpt(scan, primary[0].alternate_lba) if primary is not None else None
    if alternate is None and force:
        alternate = _gpt(scan, scan.last_lba)
    if primary is None:
        if alternate is not None:
            warn("Primary GPT is invalid, using alternate GPT.")
        return alternate
    if alternate is not None:
        _compare(primary[0], alternate[0], scan.last_lba, warn)
    else:
        warn("Alternate GPT is invalid, using primary GPT.")
    return primary


def _efi_partition(scan: _Scan, force: bool) -> bool:
    found = _find_valid_gpt(scan, force)
    if found is None:
        return False
    last = scan.last_lba
    header, entries = found
    ratio = scan.block // 512
    for n in range(min(header.entries, DISK_MAX_PARTS - 1)):
        kind, unique, start, end, _, _ = _ENTRY.unpack_from(entries, n * _ENTRY.size)
        if kind == bytes(16) or start > last or end > last:
            continue
        scan.put(n + 1, start * ratio & _U64, (end - start + 1) * ratio & _U64, str(UUID(bytes_le=unique)))
    return True


# MS-DOS ----------------------------------------------------------------------------------------------------------


def _msdos_partition(scan: _Scan, efi: bool) -> int:
    """1: a table, 0: none, -1: sector 0 cannot be read."""
    sector = scan.sector(0)
    if sector is None:
        return -1
    if sector[510:512] != b"\x55\xaa":
        return 0
    records = [_MBR_ENTRY.unpack_from(sector, 0x1BE + 16 * n) for n in range(4)]
    for n, record in enumerate(records):
        if record[0] not in (0, 0x80):
            # A FAT boot sector without a table: reserved sectors, FATs, and a media byte that FAT uses.
            reserved = int.from_bytes(sector[14:16], "little")
            fat = bool(n == 0 and reserved and sector[16] and (sector[21] >= 0xF8 or sector[21] == 0xF0))
            return int(fat)
    if efi and any(record[2] == _GPT_TYPE for record in records):
        return 0
    ratio = scan.block // 512
    signature = int.from_bytes(sector[0x1B8:0x1BC], "little")
    following = 5
    for slot, (_, _, kind, _, start, size) in enumerate(records, 1):
        if not size:
            continue
        start, size = start * ratio, size * ratio
        if kind in _EXTENDED:
            scan.put(slot, start, min(size, max(ratio, 2)))
            scan.out.text += " <"
            following = _extended(scan, start, size, signature, following)
            scan.out.text += " >"
            continue
        scan.put(slot, start, size, f"{signature:08x}-{slot:02x}")
        scan.out.text += _DISK_MANAGERS.get(kind, "")
    return 1


def _extended(scan: _Scan, first: int, first_size: int, signature: int, number: int) -> int:
    """The chain of logical partitions; the next free number. Source: msdos.c:parse_extended."""
    ratio = scan.block // 512
    here, here_size, links = first, first_size, 0
    while True:
        links += 1
        if links > MAX_LOGICAL_LINKS or number >= DISK_MAX_PARTS:
            return number
        sector = scan.sector(here)
        if sector is None or sector[510:512] != b"\x55\xaa":
            return number
        records = [_MBR_ENTRY.unpack_from(sector, 0x1BE + 16 * n) for n in range(4)]
        for n, (_, _, kind, _, start, size) in enumerate(records):
            if not size or kind in _EXTENDED:
                continue
            offset, size = start * ratio, size * ratio
            at = here + offset
            if n >= 2 and (offset + size > here_size or at < first or at + size > first + first_size):
                continue
            scan.put(number, at, size, f"{signature:08x}-{number:02x}")
            links = 0
            number += 1
            if number >= DISK_MAX_PARTS:
                return number
        link = next((record for record in records if record[5] and record[2] in _EXTENDED), None)
        if link is None:
            return number
        here, here_size = first + link[4] * ratio, link[5] * ratio
