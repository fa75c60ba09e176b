"""The virtual disk and DVD drive: what they are, data in and out, and a refusal with sense data for everything else."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvkernel.api.host import StorageUnit

ILLEGAL, INVALID_OPCODE, RANGE, FIELD = 5, (5, 0x20, 0), (5, 0x21, 0), (5, 0x24, 0)
LENGTH, LIST = (5, 0x1A, 0), (5, 0x26, 0)
MIB = 1 << 20


def cdb10(opcode: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", opcode, flags, lba, 0, count, 0)


def cdb12(opcode: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBIIBB", opcode, 0, lba, count, 0, 0)


def cdb16(opcode: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", opcode, flags, lba, count, 0, 0)


def cdb6(opcode: int, lba: int, count: int) -> bytes:
    return bytes([opcode]) + lba.to_bytes(3, "big") + bytes([count, 0])


def refused(guest: Any, cdb: bytes, **options: Any) -> tuple[int, tuple[int, int, int] | None]:
    answer, _ = guest.command(cdb, **options)
    assert answer.scsi == 2
    assert answer.status == 0xC0000001
    assert answer.moved == 0
    return answer.srb, answer.sense


# what it is ----------------------------------------------------------------------------------------------------


def test_inquiry(rig: Any) -> None:
    guest = rig.disk()
    answer, data = guest.command(bytes([0x12, 0, 0, 0, 255, 0]), room=255)
    assert answer.moved == 96
    assert data[:5] == bytes([0, 0, 5, 2, 91])
    assert data[7] == 2, "commands may be tagged"
    assert data[8:36] == b"Msft    Virtual Disk    1.0 "
    assert guest.command(bytes([0x12, 0, 0, 0, 36, 0]), room=36)[0].moved == 36
    assert refused(guest, bytes([0x12, 0, 0x83, 0, 36, 0]), room=36) == (0x86, FIELD)
    answer, _ = guest.command(bytes([0x12, 0, 0, 0, 255, 0]), room=36)
    assert (answer.srb, answer.sense) == (0x92, FIELD), "less memory than the allocation length"
    assert answer.status == 0x80000005


def test_vital_product_data(rig: Any) -> None:
    guest = rig.disk()
    pages = {}
    for page in range(256):
        answer, data = guest.command(bytes([0x12, 1, page, 0, 252, 0]), room=252)
        if answer.scsi:
            assert (answer.srb, answer.sense) == (0x86, FIELD)
        else:
            assert data[:2] == bytes([0, page])
            pages[page] = data[4 : 4 + int.from_bytes(data[2:4], "big")]
            assert answer.moved == 4 + len(pages[page])
    assert list(pages) == list(pages[0]) == [0x00, 0x83, 0xB0, 0xB1, 0xB2]
    disk_id = guest.device.units[0, 0, 0].disk_id
    t10, naa = pages[0x83][:28], pages[0x83][28:]
    assert t10 == bytes([1, 1, 0, 24]) + b"Msft    " + disk_id
    assert naa == bytes([1, 3, 0, 16, 0x60, 0x02, 0x24, 0x80]) + disk_id[:6] + disk_id[10:]
    limits = pages[0xB0]
    assert len(limits) == 60
    assert struct.unpack_from(">III", limits, 16) == (0xFFFFFFFF, 4096, 1)
    assert struct.unpack_from(">Q", limits, 32) == (16384,)
    assert pages[0xB1][:2] == b"\0\1", "no rotation"
    assert pages[0xB2] == bytes([1, 0x80, 2, 0])


def test_the_serial_number_page_exists_with_a_serial_number(rig: Any) -> None:
    guest = rig.guest(StorageUnit(image=rig.image(), serial="abc123")).start()
    answer, data = guest.command(bytes([0x12, 1, 0x80, 0, 64, 0]), room=64)
    assert (answer.scsi, data[: answer.moved]) == (0, bytes([0, 0x80, 0, 6]) + b"abc123")
    assert 0x80 in guest.command(bytes([0x12, 1, 0, 0, 64, 0]), room=64)[1][4:10]


def test_two_disks_have_two_identities_the_same_on_every_run(rig: Any) -> None:
    ids = []
    for _ in range(2):
        units = [StorageUnit(image=rig.image(name=f"{i}.img"), lun=i) for i in range(2)]
        ids.append([unit.disk_id for unit in rig.guest(*units).device.units.values()])
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]


def test_capacity(rig: Any) -> None:
    guest = rig.disk(3 * MIB)
    answer, data = guest.command(bytes([0x25]), room=8)
    assert (answer.moved, data) == (8, struct.pack(">II", 6143, 512))
    answer, data = guest.command(struct.pack(">BB8xIH", 0x9E, 0x10, 32, 0), room=32)
    assert (answer.moved, data[:16]) == (32, struct.pack(">QIBBH", 6143, 512, 0, 3, 0x8000))
    assert guest.command(struct.pack(">BB8xIH", 0x9E, 0x10, 12, 0), room=32)[0].moved == 12
    assert refused(guest, struct.pack(">BB8xIH", 0x9E, 0x12, 32, 0), room=32) == (0x86, FIELD)
    for cdb in (bytes([0x25]), struct.pack(">BB8xIH", 0x9E, 0x10, 32, 0)):
        answer, _ = guest.command(cdb, room=4)
        assert (answer.scsi, answer.srb) == (2, 0x92)


def test_a_disk_of_more_than_2_tib_reports_the_largest_number(rig: Any, tmp_path: Any) -> None:
    path = tmp_path / "sparse.img"
    path.touch()
    with path.open("r+b") as file:
        file.truncate((1 << 32) * 512 + 4096)
    from hvkernel.api.host import DiskImage

    guest = rig.guest(StorageUnit(image=DiskImage.open(path))).start()
    assert guest.command(bytes([0x25]), room=8)[1] == struct.pack(">II", 0xFFFFFFFF, 512)
    assert guest.command(struct.pack(">BB8xIH", 0x9E, 0x10, 32, 0), room=32)[1][:8] == struct.pack(">Q", (1 << 32) + 7)
    answer, data = guest.command(cdb16(0x88, (1 << 32) + 7, 1), room=512)
    assert (answer.scsi, data) == (0, bytes(512))
    assert refused(guest, cdb16(0x88, (1 << 32) + 8, 1), room=512) == (0x86, RANGE)


@pytest.mark.parametrize("cache", [True, False])
def test_mode_sense(rig: Any, cache: bool) -> None:
    guest = rig.guest(StorageUnit(image=rig.image(), write_cache=cache)).start()
    caching = bytes([8, 10, 4 if cache else 0]) + bytes(9)
    assert guest.command(bytes([0x1A, 0, 0x3F, 0, 4, 0]), room=4)[1].hex() == "0f001000", "log 10: Mode Sense"
    assert guest.command(bytes([0x1A, 0, 8, 0, 16, 0]), room=16)[1] == bytes.fromhex("0f001000") + caching
    answer, data = guest.command(bytes([0x5A, 0, 8, 0, 0, 0, 0, 0, 64, 0]), room=64)
    assert (answer.moved, data[:20]) == (20, struct.pack(">HBB4x", 18, 0, 0x10) + caching)
    changeable = guest.command(bytes([0x1A, 0, 0x40 | 8, 0, 16, 0]), room=16)[1]
    assert changeable[6] == 0
    assert guest.command(bytes([0x1A, 0, 8, 0, 0, 0]))[0].moved == 0


@pytest.mark.parametrize(
    "cdb",
    [
        bytes([0x1A, 0, 0x1C, 0, 16, 0]),
        bytes([0x1A, 0, 0xC0 | 8, 0, 16, 0]),
        bytes([0x1A, 0, 8, 0, 3, 0]),
        bytes([0x5A, 0, 8, 0, 0, 0, 0, 0, 7, 0]),
    ],
)
def test_mode_pages_that_do_not_exist_are_not_converted(rig: Any, cdb: bytes) -> None:
    assert refused(rig.disk(), cdb, room=64) == (0x86, FIELD)


def test_mode_select_changes_nothing(rig: Any) -> None:
    guest = rig.disk()
    same = bytes(4) + bytes([8, 10, 4]) + bytes(9)
    off = bytes(4) + bytes([8, 10, 0]) + bytes(9)
    assert guest.command(bytes([0x15, 0x10, 0, 0, 16, 0]), data=same)[0].scsi == 0
    assert refused(guest, bytes([0x15, 0x10, 0, 0, 16, 0]), data=off) == (0x86, LIST)
    assert refused(guest, bytes([0x15, 0x11, 0, 0, 16, 0]), data=same) == (0x86, FIELD)
    assert refused(guest, bytes([0x15, 0x10, 0, 0, 15, 0]), data=same) == (0x86, LENGTH)
    assert refused(guest, bytes([0x15, 0x10, 0, 0, 24, 0]), data=same) == (0x86, LENGTH)
    described = bytes([0, 0, 0, 8]) + bytes(8) + same[4:]
    assert guest.command(bytes([0x15, 0x10, 0, 0, 24, 0]), data=described)[0].scsi == 0
    assert refused(guest, bytes([0x15, 0x10, 0, 0, 23, 0]), data=described) == (0x86, LENGTH)
    ten = bytes(8) + same[4:]
    assert guest.command(bytes([0x55, 0x10, 0, 0, 0, 0, 0, 0, 20, 0]), data=ten)[0].scsi == 0
    assert guest.command(bytes([0x15, 0x10, 0, 0, 0, 0]))[0].scsi == 0


def test_request_sense_repeats_the_last_error_once(rig: Any) -> None:
    guest = rig.disk()
    refused(guest, bytes([0xFF]))
    sense = guest.command(bytes([0x03, 0, 0, 0, 18, 0]), room=18)[1]
    assert (sense[0], sense[2], sense[7], sense[12]) == (0x70, 5, 10, 0x20)
    assert guest.command(bytes([0x03, 0, 0, 0, 18, 0]), room=18)[1][2] == 0


# data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "write"),
    [
        (lambda lba, n: cdb6(0x08, lba, n), lambda lba, n: cdb6(0x0A, lba, n)),
        (lambda lba, n: cdb10(0x28, lba, n), lambda lba, n: cdb10(0x2A, lba, n)),
        (lambda lba, n: cdb12(0xA8, lba, n), lambda lba, n: cdb12(0xAA, lba, n)),
        (lambda lba, n: cdb16(0x88, lba, n), lambda lba, n: cdb16(0x8A, lba, n)),
    ],
    ids=["6", "10", "12", "16"],
)
def test_reads_and_writes_of_every_length(rig: Any, read: Any, write: Any) -> None:
    guest = rig.disk()
    image = guest.device.units[0, 0, 0].image
    for lba, count, offset in ((0, 1, 0), (2047, 1, 512), (5, 64, 1536), (100, 16, 4095)):
        before = image.pread(image.size, 0)
        answer, data = guest.command(read(lba, count), room=512 * count, offset=offset)
        assert (answer.scsi, answer.srb, answer.moved) == (0, 1, 512 * count)
        assert data == before[512 * lba : 512 * (lba + count)]
        fresh = random.Random(lba).randbytes(512 * count)
        answer, _ = guest.command(write(lba, count), data=fresh, offset=offset)
        assert (answer.scsi, answer.moved) == (0, 512 * count)
        assert image.pread(image.size, 0) == before[: 512 * lba] + fresh + before[512 * (lba + count) :]
        assert refused(guest, read(2048 - count + 1, count), room=512 * count) == (0x86, RANGE)
        assert refused(guest, write(2048, count), data=fresh) == (0x86, RANGE)
        assert refused(guest, read(lba, 0), room=512) == (0x86, RANGE)
        assert refused(guest, read(lba, count), room=512 * count - 1) == (0x86, RANGE)


blocks = st.integers(0, 255)


@given(
    script=st.lists(
        st.tuples(st.booleans(), blocks, st.integers(1, 40), st.integers(0, 4095), st.integers(0, 2**32)), max_size=12
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_sequence_of_transfers_agrees_with_a_byte_array(
    rig: Any, script: list[tuple[bool, int, int, int, int]]
) -> None:
    guest = rig.disk(256 * 512)
    image = guest.device.units[0, 0, 0].image
    model = bytearray(image.pread(image.size, 0))
    for writes, lba, count, offset, seed in script:
        size = 512 * count
        inside = lba + count <= 256
        if writes:
            fresh = random.Random(seed).randbytes(size)
            answer, _ = guest.command(cdb10(0x2A, lba, count), data=fresh, offset=offset)
            if inside:
                model[512 * lba : 512 * lba + size] = fresh
        else:
            answer, data = guest.command(cdb10(0x28, lba, count), room=size, offset=offset)
            assert data == (model[512 * lba : 512 * lba + size] if inside else b"\xee" * size)
        assert answer.scsi == (0 if inside else 2)
    assert image.pread(image.size, 0) == model


def test_flushes(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.disk()
    image = guest.device.units[0, 0, 0].image
    flushed: list[int] = []
    monkeypatch.setattr(type(image), "flush", lambda self: flushed.append(1))
    guest.command(cdb10(0x2A, 0, 1), data=bytes(512))
    assert flushed == []
    for cdb in (cdb10(0x2A, 0, 1, flags=8), cdb16(0x8A, 0, 1, flags=8)):
        guest.command(cdb, data=bytes(512))
    for cdb in (cdb10(0x35, 0, 0), cdb16(0x91, 0, 0)):
        assert guest.command(cdb)[0].scsi == 0
    assert len(flushed) == 4
    assert refused(guest, cdb10(0x35, 2048, 0)) == (0x86, RANGE)


def test_a_read_only_disk_is_protected(rig: Any) -> None:
    guest = rig.disk(read_only=True)
    assert guest.command(bytes([0x1A, 0, 0x3F, 0, 4, 0]), room=4)[1][2] == 0x90
    for cdb, data in (
        (cdb10(0x2A, 0, 1), bytes(512)),
        (cdb10(0x41, 0, 1), bytes(512)),
        (cdb10(0x42, 0, 24), struct.pack(">HH4xQI4x", 22, 16, 0, 1)),
    ):
        assert refused(guest, cdb, data=data) == (0x84, (7, 0x27, 0))
    assert guest.command(cdb10(0x35, 0, 0))[0].scsi == 0


def test_an_image_that_fails_is_a_medium_error(rig: Any) -> None:
    guest = rig.disk()
    image = guest.device.units[0, 0, 0].image
    (rig.tmp_path / "disk.img").write_bytes(bytes(512))
    assert refused(guest, cdb10(0x28, 1000, 1), room=512) == (0x84, (3, 0x11, 0))
    image.close()
    assert refused(guest, cdb10(0x2A, 0, 1), data=bytes(512)) == (0x84, (3, 0x03, 0))
    assert refused(guest, cdb10(0x35, 0, 0)) == (0x84, (3, 0x03, 0))


def test_unmap(rig: Any) -> None:
    guest = rig.disk()
    image = guest.device.units[0, 0, 0].image
    before = image.pread(image.size, 0)

    def unmap(data: bytes, size: int | None = None, flags: int = 0) -> Any:
        return cdb10(0x42, 0, len(data) if size is None else size, flags)

    ranges = struct.pack(">QI4x", 3, 2) + struct.pack(">QI4x", 2000, 48) + struct.pack(">QI4x", 5000, 0)
    good = struct.pack(">HH4x", 6 + len(ranges), len(ranges)) + ranges
    answer, _ = guest.command(unmap(good), data=good)
    assert (answer.scsi, answer.moved) == (0, len(good))
    after = before[: 3 * 512] + bytes(1024) + before[5 * 512 : 2000 * 512] + bytes(48 * 512)
    assert image.pread(image.size, 0) == after
    bad = struct.pack(">HH4x", 22, 16) + struct.pack(">QI4x", 2047, 2)
    assert refused(guest, unmap(bad), data=bad) == (0x86, RANGE)
    assert refused(guest, unmap(good, flags=1), data=good) == (0x86, FIELD)
    assert refused(guest, unmap(good, 7), data=good) == (0x86, LENGTH)
    assert refused(guest, unmap(good, len(good) + 1), data=good) == (0x86, LENGTH)
    odd = struct.pack(">HH4x", 22, 15) + bytes(16)
    assert refused(guest, unmap(odd), data=odd) == (0x86, LIST)
    assert guest.command(unmap(b"", 0))[0].scsi == 0
    assert image.pread(image.size, 0) == after


def test_write_same(rig: Any) -> None:
    guest = rig.disk(17 * MIB)
    image = guest.device.units[0, 0, 0].image
    block = bytes(range(256)) * 2
    for cdb in (cdb10(0x41, 4, 3), cdb16(0x93, 7, 2)):
        assert guest.command(cdb, data=block)[0].scsi == 0
    assert image.pread(5 * 512, 4 * 512) == block * 5
    assert guest.command(cdb16(0x93, 0, 16384), data=block)[0].scsi == 0
    assert refused(guest, cdb16(0x93, 0, 16385), data=block) == (0x86, RANGE)
    assert refused(guest, cdb16(0x93, 34816, 1), data=block) == (0x86, RANGE)
    assert refused(guest, cdb16(0x93, 0, 1, flags=8), data=block) == (0x86, FIELD)
    assert refused(guest, cdb16(0x93, 0, 1), data=block[:511]) == (0x86, FIELD)
    assert guest.command(cdb16(0x93, 0, 0), data=block)[0].scsi == 0


def test_verify_start_stop_and_the_like(rig: Any) -> None:
    guest = rig.disk()
    for opcode in (0x00, 0x16, 0x17, 0x1B, 0x1D, 0x1E):
        assert guest.command(bytes([opcode]))[0].scsi == 0
    assert refused(guest, bytes([0x1D, 0x20])) == (0x86, FIELD)
    assert guest.command(cdb10(0x2F, 2047, 1))[0].scsi == 0
    assert refused(guest, cdb10(0x2F, 2047, 2)) == (0x86, RANGE)
    assert refused(guest, cdb10(0x2F, 0, 1, flags=2)) == (0x86, FIELD)


def test_every_other_operation_code_is_refused(rig: Any) -> None:
    guest = rig.disk()
    known = {
        0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x16, 0x17, 0x1A, 0x1B, 0x1D, 0x1E, 0x25, 0x28, 0x2A, 0x2F, 0x35, 0x41,
        0x42, 0x55, 0x5A, 0x88, 0x8A, 0x8F, 0x91, 0x93, 0x9E, 0xA0, 0xA8, 0xAA, 0xAF,
    }  # fmt: skip
    for opcode in range(256):
        if opcode not in known:
            assert refused(guest, bytes([opcode])) == (0x86, INVALID_OPCODE), hex(opcode)


@given(cdb=st.binary(min_size=16, max_size=16), size=st.integers(0, 5000), writes=st.booleans(), dvd=st.booleans())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_command_breaks_the_device(rig: Any, cdb: bytes, size: int, writes: bool, dvd: bool) -> None:
    unit = StorageUnit("dvd") if dvd else StorageUnit(image=rig.image(64 * 512))
    guest = rig.guest(unit).start()
    answer, _ = guest.command(cdb, data=cdb * (size // 16)) if writes else guest.command(cdb, room=size)
    assert answer.scsi in (0, 2)
    assert (answer.scsi == 0) == (answer.srb == 1) == (answer.status == 0)
    assert answer.scsi == 0 or answer.sense is not None
    assert answer.moved <= max(size, 0)
    assert guest.services.findings == []
    for device in guest.device.units.values():
        if device.image is not None:
            device.image.close()


# DVD -----------------------------------------------------------------------------------------------------------


def test_an_empty_dvd_drive(rig: Any) -> None:
    guest = rig.guest(StorageUnit("dvd")).start()
    data = guest.command(bytes([0x12, 0, 0, 0, 36, 0]), room=36)[1]
    assert data[:3] == bytes([5, 0x80, 0])
    assert data[8:36] == b"Msft    Virtual DVD-ROM 1.0 "
    for cdb in (bytes(6), cdb10(0x28, 2, 2), bytes([0x25])):
        assert refused(guest, cdb, room=4096) == (0x84, (2, 0x3A, 2)), "log 01: tray open"
    assert refused(guest, bytes([0x1A, 0, 0x2A, 0, 64, 0]), room=64) == (0x86, INVALID_OPCODE)
    assert refused(guest, bytes([0x12, 1, 0, 0, 36, 0]), room=36) == (0x86, FIELD)
    events = guest.command(bytes([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]), room=8)[1]
    assert events == bytes([0, 6, 4, 0x10, 0, 1, 0, 0])
    assert guest.command(bytes([0x4A, 1, 0, 0, 0x02, 0, 0, 0, 4, 0]), room=4)[1] == bytes([0, 2, 0x80, 0x10])
    assert refused(guest, bytes([0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8, 0]), room=8) == (0x86, FIELD)


def test_a_dvd_with_a_medium(rig: Any) -> None:
    image = rig.image(64 * 2048, read_only=True)
    guest = rig.guest(StorageUnit("dvd", image)).start()
    assert guest.command(bytes(6))[0].scsi == 0
    assert guest.command(bytes([0x25]), room=8)[1] == struct.pack(">II", 63, 2048)
    assert guest.command(cdb10(0x28, 10, 2), room=4096)[1] == image.pread(4096, 20480)
    assert guest.command(cdb12(0xA8, 63, 1), room=2048)[1] == image.pread(2048, 63 * 2048)
    assert refused(guest, cdb10(0x28, 63, 2), room=4096) == (0x86, RANGE)
    assert guest.command(bytes([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]), room=8)[1][5] == 2
