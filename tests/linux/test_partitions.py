"""Partition tables: against images made by sfdisk, real-log texts, and tables that are cut off or lie."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.linux.partitions import check_partition

MIB = 1 << 20
DATA = Path(__file__).parents[1] / "data" / "partitions"
DISK = UUID(int=7)
LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def parse(image: Any, name: Any = "sda", block: Any = 512, **kind: Any) -> Any:
    return check_partition(name, len(image) // 512, block, lambda n: bytes(image[n * 512 : (n + 1) * 512]), **kind)


def gpt(parts: Any, size: Any = 8 * MIB, block: Any = 512, disk: Any = DISK) -> Any:
    """A disk with a valid GPT. ``parts``: (first LBA, last LBA, type, uuid)."""
    image = bytearray(size)
    last = size // block - 1
    image[0x1BE : 0x1BE + 16] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    image[510:512] = b"\x55\xaa"
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", kind.bytes_le, uuid.bytes_le, first, end, 0, "name".encode("utf-16-le"))
        for first, end, kind, uuid in parts
    ).ljust(128 * 128, b"\0")
    table_blocks = len(entries) // block
    for mine, other, table in ((1, last, 2), (last, 1, last - table_blocks)):
        image[table * block : table * block + len(entries)] = entries
        fields = [
            b"EFI PART",
            0x10000,
            92,
            0,
            0,
            mine,
            other,
            2 + table_blocks,
            last - table_blocks - 1,
            disk.bytes_le,
            table,
            128,
            128,
            zlib.crc32(entries),
        ]
        header = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
        fields[3] = zlib.crc32(header)
        image[mine * block : mine * block + 92] = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    return image


def mbr(records: Any, size: Any = 8 * MIB, signature: Any = 0x12345678) -> Any:
    """``records``: (slot, boot, type, start, sectors)."""
    image = bytearray(size)
    image[0x1B8:0x1BC] = struct.pack("<I", signature)
    for slot, boot, kind, start, sectors in records:
        at = 0x1BE + 16 * (slot - 1)
        image[at : at + 16] = struct.pack("<B3sB3sII", boot, b"", kind, b"", start, sectors)
    image[510:512] = b"\x55\xaa"
    return image


PARTS = [(2048, 4095, ESP, UUID(int=1)), (4096, 8191, LINUX, UUID(int=2))]


def test_gpt_names_and_uuids() -> None:
    found = parse(gpt(PARTS))
    assert found.text == " sda1 sda2"
    assert found.parts == {
        1: (2048, 2048, "00000000-0000-0000-0000-000000000001"),
        2: (4096, 4096, "00000000-0000-0000-0000-000000000002"),
    }
    assert found.warnings == []


def test_a_name_that_ends_in_a_digit_gets_a_p() -> None:
    assert parse(gpt(PARTS), name="nvme0n1").text == " p1 p2"


def test_gaps_in_the_table_keep_their_numbers() -> None:
    empty = (0, 0, UUID(int=0), UUID(int=0))
    assert parse(gpt([PARTS[0], empty, empty, PARTS[1]])).text == " sda1 sda4"


def test_gpt_with_blocks_of_4096_bytes() -> None:
    image = gpt([(16, 255, LINUX, UUID(int=3))], block=4096)
    assert parse(image, block=4096).parts[1][:2] == (128, 1920)


@pytest.mark.parametrize("what", ["signature", "crc", "size", "my_lba", "usable", "entries", "mbr"])
def test_a_gpt_with_one_bad_field_is_not_believed(what: Any) -> None:
    image = gpt(PARTS)
    offsets = {
        "signature": 512,
        "crc": 512 + 16,
        "size": 512 + 12,
        "my_lba": 512 + 24,
        "usable": 512 + 48,
        "entries": 1024 + 5,
        "mbr": 510,
    }
    image[offsets[what]] ^= 0x41
    found = parse(image)
    assert found is None or found.text == " sda1"


def test_a_broken_alternate_is_reported_and_the_primary_used() -> None:
    image = gpt(PARTS)
    image[-512] ^= 0xFF
    found = parse(image)
    assert found.text == " sda1 sda2"
    assert found.warnings == ["Alternate GPT is invalid, using primary GPT."]


def test_a_disk_that_has_grown_says_so() -> None:
    image = gpt(PARTS) + bytearray(MIB)
    assert "GPT:Primary header thinks Alt. header is not at the end of the disk." in parse(image).warnings
    assert parse(image).warnings[-1] == "GPT: Use GNU Parted to correct GPT errors."


def test_partitions_that_leave_the_disk_are_left_out() -> None:
    assert parse(gpt([PARTS[0], (4096, 1 << 40, LINUX, UUID(int=2))])).text == " sda1"


def test_msdos_primary_and_logical_partitions() -> None:
    image = mbr([(1, 0x80, 0x83, 2048, 2048), (2, 0, 0x05, 4096, 8192)])
    for base, nxt in ((4096, 2048), (6144, 0)):
        sector = bytearray(mbr([(1, 0, 0x83, 64, 1000)], size=512, signature=0))
        if nxt:
            sector[0x1CE : 0x1CE + 16] = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", nxt, 2048)
        image[base * 512 : base * 512 + 512] = sector
    found = parse(image)
    assert found.text == " sda1 sda2 < sda5 sda6 >"
    assert found.parts == {
        1: (2048, 2048, "12345678-01"),
        2: (4096, 2, ""),
        5: (4160, 1000, "12345678-05"),
        6: (6208, 1000, "12345678-06"),
    }


def test_an_extended_chain_that_is_a_loop_ends() -> None:
    image = mbr([(1, 0, 0x05, 2048, 4096)])
    sector = bytearray(512)
    sector[0x1BE : 0x1BE + 16] = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 0, 4096)
    sector[510:512] = b"\x55\xaa"
    image[2048 * 512 : 2049 * 512] = sector
    assert parse(image).text == " sda1 < >"


def test_a_chain_with_data_in_every_link_stops_at_255() -> None:
    image = mbr([(1, 0, 0x05, 2048, 4096)])
    sector = bytearray(512)
    sector[0x1BE : 0x1BE + 16] = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 1, 8)
    sector[0x1CE : 0x1CE + 16] = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 0, 4096)
    sector[510:512] = b"\x55\xaa"
    image[2048 * 512 : 2049 * 512] = sector
    assert max(parse(image).parts) == 255


def test_a_fat_without_table_is_a_disk_without_partitions() -> None:
    image = bytearray(MIB)
    image[14:16], image[16], image[21] = b"\1\0", 2, 0xF8
    image[0x1BE] = 0x42
    image[510:512] = b"\x55\xaa"
    assert parse(image).text == ""
    image[21] = 0
    assert parse(image) is None


def test_a_protective_mbr_is_not_a_dos_table() -> None:
    image = gpt(PARTS)
    image[512] = 0
    assert parse(image) is None
    assert parse(image, efi=False).text == " sda1"


def test_configuration_rules_parsers_out() -> None:
    assert parse(gpt(PARTS), efi=False, msdos=False) is None
    assert parse(mbr([(1, 0, 0x83, 64, 64)]), msdos=False) is None


def test_blank_and_tiny_disks() -> None:
    assert parse(bytearray(MIB)) is None
    assert parse(bytearray(512)) is None


def test_a_device_that_fails_is_an_error() -> None:
    def broken(sector: int) -> bytes:
        raise OSError(5, "no")

    with pytest.raises(OSError, match="sector 0 cannot be read"):
        check_partition("sda", 100, 512, broken)


def test_a_table_beyond_the_end_is_an_error() -> None:
    image = gpt(PARTS)
    struct.pack_into("<Q", image, 512 + 72, 16383)
    header = bytearray(image[512 : 512 + 92])
    header[16:20] = bytes(4)
    struct.pack_into("<I", image, 512 + 16, zlib.crc32(header))
    with pytest.raises(OSError, match="beyond the end"):
        parse(image)


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_hostile_tables_never_raise_anything_else(seed: Any, flips: Any) -> None:
    rng = random.Random(seed)
    image = gpt(PARTS, size=MIB) if seed % 2 else mbr([(1, 0, 0x05, 1, 1500), (2, 0, 0x83, 2, 4)], size=MIB)
    for _ in range(flips):
        image[rng.randrange(min(len(image), 4096))] = rng.randrange(256)
    if rng.random() < 0.3:
        del image[rng.randrange(1, 40) * 512 :]
    found = None
    with contextlib.suppress(OSError):  # an I/O error or a table beyond the end are answers
        found = parse(image)
    if found is not None:
        assert all(0 < n < 256 and start >= 0 and size >= 0 for n, (start, size, _) in found.parts.items())


@pytest.mark.parametrize(("name", "text"), [("gpt", " sda1 sda2"), ("dos", " sda1 sda2 < sda5 sda6 >")])
def test_images_of_sfdisk(name: Any, text: Any) -> None:
    """What the parser finds is what sfdisk itself says of its image."""
    found = parse(zlib.decompress((DATA / f"{name}.img.zlib").read_bytes()))
    assert found.text == text
    assert found.warnings == []
    rows = [line for line in (DATA / f"{name}.dump").read_text().splitlines() if "start=" in line]
    for row, (number, (start, size, uuid)) in zip(rows, sorted(found.parts.items()), strict=True):
        fields = dict(f.split("=") for f in row.split(": ")[1].replace(" ", "").split(",") if "=" in f)
        assert int(fields["start"]) == start
        if fields["type"] != "5":
            assert int(fields["size"]) == size
        if "uuid" in fields:
            assert fields["uuid"].lower() == uuid
        assert row.split(" ")[0].endswith(str(number))


def test_the_disk_prints_its_partitions_and_cuts_what_leaves_it(make_guest: Any, fake_hba: Any) -> None:
    from hvkernel.api.guest.device import Device

    guest = make_guest(config={"SCSI": "y", "BLK_DEV_SD": "y", "SCSI_SCAN_ASYNC": "y"})
    k = guest.kernel
    k.link()
    disk = mbr([(1, 0, 0x83, 64, 100), (2, 0, 0x83, 2000, 100), (3, 0, 0x83, 5000, 10)], size=MIB)
    hba = fake_hba(guest, {(0, 0, 0): disk})

    def body() -> None:
        k.initcall.run("subsys", "late")
        k.scsi.scsi_add_host(hba.host, Device("parent"))
        k.scsi.scsi_scan_host(hba.host)
        k.async_.async_synchronize_full()

    guest.call(body)
    at = guest.lines.index(" sda: sda1 sda2 sda3")
    assert guest.lines[at + 1 : at + 6] == [
        "sda: p2 size 100 extends beyond EOD, enabling native capacity",
        " sda: sda1 sda2 sda3",
        "sda: p2 size 100 extends beyond EOD, truncated",
        "sda: p3 start 5000 is beyond EOD, truncated",
        "sd 0:0:0:0: [sda] Attached SCSI disk",
    ]
    assert [(p.name, p.start, p.sectors) for p in k.block.disks[0].partitions] == [
        ("sda1", 64, 100),
        ("sda2", 2000, 48),
    ]
    assert k.block.all_partitions() == [
        "0800            1024 sda  driver: sd",
        "  0801              50 sda1 12345678-01",
        "  0802              24 sda2 12345678-02",
    ]


def disk_of(make_guest: Any, fake_hba: Any, image: Any, **options: Any) -> Any:
    from hvkernel.api.guest.device import Device

    guest = make_guest(config={"SCSI": "y", "BLK_DEV_SD": "y"}, **options)
    k = guest.kernel
    k.link()
    hba = fake_hba(guest, {(0, 0, 0): image})

    def body() -> None:
        k.initcall.run("subsys", "late")
        k.scsi.scsi_add_host(hba.host, Device("parent"))
        k.scsi.scsi_scan_host(hba.host)
        k.async_.async_synchronize_full()

    guest.call(body)
    return guest


def test_an_extended_partition_beyond_the_end_asks_for_the_native_capacity_once(make_guest: Any, fake_hba: Any) -> None:
    image = mbr([(1, 0, 0x83, 64, 100), (2, 0, 5, 9000, 100)], size=MIB)
    guest = disk_of(make_guest, fake_hba, image)
    lines = [line for line in guest.lines if "sda:" in line and "[sda]" not in line]
    assert lines == [
        " sda: sda1 sda2 < >",
        "sda: partition table partially beyond EOD, enabling native capacity",
        " sda: sda1 sda2 < >",
        "sda: partition table partially beyond EOD, truncated",
        "sda: p2 start 9000 is beyond EOD, truncated",
    ]


def test_a_table_beyond_the_end_cannot_be_read(make_guest: Any, fake_hba: Any) -> None:
    image = gpt([], size=64 * 512)
    fields = list(struct.unpack_from("<8sIIIIQQQQ16sQIII", image, 512))
    fields[3], fields[7], fields[8], fields[10] = 0, 2, 63, 60
    fields[3] = zlib.crc32(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
    image[512 : 512 + 92] = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    guest = disk_of(make_guest, fake_hba, image)
    assert [(line.level, line.text) for line in guest.kernel.printk.log if "partition table" in line.text] == [
        (6, " sda: unable to read partition table"),
        (4, "sda: partition table beyond EOD, enabling native capacity"),
        (6, " sda: unable to read partition table"),
        (4, "sda: partition table beyond EOD, truncated"),
    ]


def test_gpt_on_the_command_line_takes_the_alternate_header(make_guest: Any, fake_hba: Any) -> None:
    image = gpt(PARTS)
    image[:1024] = bytes(1024)
    assert parse(image) is None
    found = parse(image, force_gpt=True)
    assert (found.text, found.warnings) == (" sda1 sda2", ["Primary GPT is invalid, using alternate GPT."])
    guest = disk_of(make_guest, fake_hba, image, command_line=b"quiet gpt")
    assert " sda: sda1 sda2" in guest.lines


def test_numbers_of_64_bits_wrap_as_in_the_kernel() -> None:
    found = parse(gpt([(4096, 4090, LINUX, UUID(int=1))]))
    assert found.parts[1][:2] == (4096, (1 << 64) - 5)
    found = parse(gpt([(512, 500, LINUX, UUID(int=1))], block=4096), block=4096)
    assert found.parts[1][:2] == (4096, ((1 << 64) - 11) * 8 % (1 << 64))
    image = gpt(PARTS)
    wrapped = check_partition("sda", 1 << 55, 512, lambda n: bytes(image[n * 512 : (n + 1) * 512]))
    assert wrapped is not None
    assert "GPT:16383 != -1" in wrapped.warnings


def test_disk_managers_are_named() -> None:
    assert parse(mbr([(1, 0, 0x54, 64, 100), (2, 0, 0x55, 200, 100)])).text == " sda1[DM] sda2[EZD]"
