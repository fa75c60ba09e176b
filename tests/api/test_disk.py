"""Disk images: what is refused and how, reads and writes, the blank disk's partition table."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.api.host import DiskError, DiskImage


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        DiskImage.open(tmp_path / "none.img")
    assert str(caught.value) == f"{tmp_path}/none.img: No such file or directory"


def test_a_directory_or_device_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        DiskImage.open(tmp_path)
    assert caught.value.problem == "Is a directory"
    with pytest.raises(DiskError) as caught:
        DiskImage.open("/dev/null")
    assert caught.value.problem == "not a file or block device"
    with pytest.raises(DiskError, match="null byte"):
        DiskImage.open("a\0b")


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1000])
def test_an_image_of_an_odd_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(DiskError) as caught:
        DiskImage.open(path)
    assert str(caught.value) == f"{path}: {size} bytes is not a positive multiple of 512"


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    path = tmp_path / "closed.img"
    path.write_bytes(bytes(512))
    path.chmod(0)
    return path


def test_an_unreadable_image(closed: Path, unprivileged: None) -> None:
    with pytest.raises(DiskError) as caught:
        DiskImage.open(closed)
    assert caught.value.problem == "Permission denied"


def test_reads_and_writes_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(4096))
    with DiskImage.open(path) as image:
        assert image.size == 4096
        assert image.pread(100, 50) == path.read_bytes()[50:150]
        image.pwrite(b"hello", 1000)
        parts = [bytearray(b"ab"), bytearray(b""), bytearray(b"cdefg")]
        image.writev([memoryview(part) for part in parts], 2000)
        image.flush()
        into = [bytearray(3), bytearray(0), bytearray(4)]
        image.readv([memoryview(part) for part in into], 2000)
        assert b"".join(into) == b"abcdefg"
    assert path.read_bytes()[1000:1005] == b"hello"
    assert path.read_bytes()[2000:2007] == b"abcdefg"


def test_more_pieces_than_one_call_takes(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8192))
    data = random.Random(2).randbytes(5000)
    with DiskImage.open(path) as image:
        image.writev([memoryview(data)[i : i + 2] for i in range(0, 5000, 2)], 100)
        into = bytearray(5000)
        image.readv([memoryview(into)[i : i + 2] for i in range(0, 5000, 2)], 100)
    assert bytes(into) == data == path.read_bytes()[100:5100]


def test_nothing_outside_the_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    with DiskImage.open(path) as image:
        for offset, size in ((-1, 1), (512, 1), (0, 513)):
            with pytest.raises(DiskError, match="are outside its 512"):
                image.pread(size, offset)
            with pytest.raises(DiskError, match="are outside its 512"):
                image.pwrite(bytes(size), offset)
        path.write_bytes(b"")
        calls: list[Callable[[], object]] = [
            lambda: image.pread(512, 0),
            lambda: image.readv([memoryview(bytearray(512))], 0),
        ]
        for read in calls:
            with pytest.raises(OSError, match="became shorter"):
                read()
    with pytest.raises(DiskError, match="used after close"):
        image.pread(1, 0)
    image.close()


def test_a_read_only_image_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    path.chmod(0o444)
    with DiskImage.open(path, read_only=True) as image:
        with pytest.raises(DiskError, match="read-only"):
            image.pwrite(b"x", 0)
        with pytest.raises(DiskError, match="read-only"):
            image.writev([memoryview(b"x")], 0)


@pytest.mark.parametrize("size", [2 << 20, (64 << 20), (64 << 20) + 512])
def test_the_blank_disk_has_a_sound_gpt(size: int) -> None:
    with DiskImage.blank(random.Random(7), size) as image:
        sectors = size // 512
        mbr = image.pread(512, 0)
        assert mbr[510:] == b"\x55\xaa"
        assert (mbr[450], struct.unpack_from("<II", mbr, 454)) == (0xEE, (1, sectors - 1))
        headers = [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)]
        for here, other, entries_at in headers:
            raw = image.pread(512, here * 512)
            fields = struct.unpack_from("<8sIIIIQQQQ16sQIII", raw)
            assert (fields[0], fields[1], fields[2]) == (b"EFI PART", 0x10000, 92)
            assert fields[3] == zlib.crc32(raw[:16] + bytes(4) + raw[20:92])
            assert fields[5:9] == (here, other, 34, sectors - 34)
            assert fields[10:13] == (entries_at, 128, 128)
            entries = image.pread(128 * 128, entries_at * 512)
            assert fields[13] == zlib.crc32(entries)
            first, last = struct.unpack_from("<QQ", entries, 32)
            assert first == 2048
            assert first <= last <= sectors - 34
            assert not any(entries[128:])


def test_the_same_seed_gives_the_same_blank_disk() -> None:
    images = [DiskImage.blank(random.Random(seed)) for seed in (1, 1, 2)]
    first, same, other = (image.pread(1 << 20, 0) for image in images)
    assert first == same
    assert first != other
    for image in images:
        image.close()


@pytest.mark.parametrize("size", [0, 1 << 20, (2 << 20) + 1])
def test_a_blank_disk_has_room_for_its_tables(size: int) -> None:
    with pytest.raises(DiskError, match=f"{size} bytes is not a multiple of 512 from 2097152 on"):
        DiskImage.blank(random.Random(1), size)
