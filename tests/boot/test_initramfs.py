"""Images of an initramfs, made by cpio and the compressors of a distribution, read as the kernel reads them."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.boot import initramfs
from hvkernel.boot.cpio import ArchiveError
from hvkernel.boot.initramfs import read_image
from hvkernel.boot.initrd import Initrd, read_initrd
from hvkernel.config.errors import InputError

MODULES = "usr/lib/modules/6.1.0-42-amd64/kernel/drivers"
FILES = (f"{MODULES}/hv/hv_vmbus.ko", f"{MODULES}/scsi/hv_storvsc.ko.xz", f"{MODULES}/hid/hid-hyperv.ko.zst", "init")
FOUND = ("hv_vmbus", "hv_storvsc", "hid_hyperv")
COMPRESSORS = {
    "gzip": ["gzip", "-c"],
    "bzip2": ["bzip2", "-c"],
    "xz": ["xz", "-c", "--check=crc32"],
    "lzma": ["xz", "-c", "--format=lzma"],
    "zstd": ["zstd", "-c", "-q", "-19"],
    "lz4": ["lz4", "-c", "-l"],
}
PACKAGES = {"xz": "xz-utils"}


@pytest.fixture
def archive(tmp_path: Path, program: Callable[[str, str], str]) -> Callable[..., bytes]:
    """Pack files of these names with cpio."""
    cpio = program("cpio", "cpio")

    def pack(names: tuple[str, ...] = FILES, form: str = "newc") -> bytes:
        root = tmp_path / "tree"
        for number, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(random.Random(name).randbytes(1000 + 333 * number) + bytes(70_000))
        listed = "".join(f"{name}\n" for name in names).encode()
        return subprocess.run(
            [cpio, "-o", "-H", form, "--quiet"], cwd=root, input=listed, capture_output=True, check=True
        ).stdout

    return pack


@pytest.fixture
def compressed(program: Callable[[str, str], str]) -> Callable[[str, bytes], bytes]:
    """Compress bytes by a program."""

    def run(method: str, data: bytes) -> bytes:
        name, *options = COMPRESSORS[method]
        found = program(name, PACKAGES.get(name, name))
        return subprocess.run([found, *options], input=data, capture_output=True, check=True).stdout

    return run


@pytest.fixture
def image(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write an image."""

    def write(data: bytes) -> Path:
        path = tmp_path / "initrd.img"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("form", ["newc", "crc"])
def test_a_plain_archive(form: str, archive: Callable[..., bytes], image: Callable[[bytes], Path]) -> None:
    found = read_image(image(archive(form=form)))
    assert found.names == FILES
    assert found.methods == ()


@pytest.mark.parametrize("method", COMPRESSORS)
def test_each_compression_after_early_microcode(
    method: str,
    archive: Callable[..., bytes],
    compressed: Callable[[str, bytes], bytes],
    image: Callable[[bytes], Path],
) -> None:
    early = archive(("kernel/x86/microcode/GenuineIntel.bin",))
    path = image(early + compressed(method, archive()))
    assert read_image(path).names == ("kernel/x86/microcode/GenuineIntel.bin", *FILES)
    assert read_initrd(str(path)) == Initrd(FOUND, exact=True, methods=(method,))


def test_segments_by_different_methods(
    archive: Callable[..., bytes], compressed: Callable[[str, bytes], bytes], image: Callable[[bytes], Path]
) -> None:
    parts = [compressed(method, archive((f"{method}/{method}.ko",))) for method in ("zstd", "xz", "gzip", "bzip2")]
    two_in_one = compressed("gzip", archive(("a",)) + bytes(1024) + archive(("b",)))
    found = read_image(image(b"".join(parts) + bytes(512) + two_in_one))
    assert found.names == ("zstd/zstd.ko", "xz/xz.ko", "gzip/gzip.ko", "bzip2/bzip2.ko", "a", "b")
    assert found.methods == ("zstd", "xz", "gzip", "bzip2")


def test_many_lz4_blocks(
    archive: Callable[..., bytes], compressed: Callable[[str, bytes], bytes], image: Callable[[bytes], Path]
) -> None:
    names = tuple(f"file{number}" for number in range(300))
    assert read_image(image(compressed("lz4", archive(names)))).names == names


def test_names_begin_as_the_tool_wrote_them(archive: Callable[..., bytes], image: Callable[[bytes], Path]) -> None:
    assert read_image(image(archive(("./lib/modules/x.ko",)))).names == ("lib/modules/x.ko",)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (lambda whole: whole[:50_000], "byte 0: ends within 'usr/lib/modules/"),
        (lambda whole: whole[:60], "byte 0: ends within a cpio header"),
        (lambda whole: whole[:54] + b"zz" + whole[56:], "byte 0: b'zz"),
        (lambda whole: whole + b"junk", "b'junk' is neither a cpio archive nor a compression that the kernel knows"),
        (lambda whole: whole + b"\0\0" + whole, "does not begin at a multiple of 4, so the kernel misses it"),
        (
            lambda whole: whole + b"\x04\x22\x4d\x18",
            "an lz4 frame, which the kernel does not read: make it with lz4 -l",
        ),
        (lambda whole: whole + b"\x89LZO", "compressed by lzo, which is not read here"),
        (lambda whole: whole + b"\x1f\x8b\x08", "is damaged or cut off: it ends too early"),
        (lambda whole: whole + b"\xfd7zXZ\0\xff\xff", "xz segment at byte"),
        (lambda whole: whole + b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff", "zstd segment at byte"),
        (lambda whole: whole + b"\x02\x21\x4c\x18\xff\xff\xff\x7f", "lz4 segment at byte"),
        (lambda whole: whole + b"\x02\x21\x4c\x18\x04\0\0\0abcd", "lz4 segment at byte"),
    ],
)
def test_damaged_images(
    broken: Callable[[bytes], bytes], text: str, archive: Callable[..., bytes], image: Callable[[bytes], Path]
) -> None:
    path = image(broken(archive()))
    with pytest.raises(InputError) as caught:
        read_initrd(str(path))
    assert str(caught.value).startswith(f"{path}: is no initramfs that the kernel can read: ")
    assert text in str(caught.value)


def test_the_old_format(archive: Callable[..., bytes], image: Callable[[bytes], Path]) -> None:
    with pytest.raises(InputError, match="cpio's old format, which the kernel refuses: use -H newc"):
        read_initrd(str(image(archive(form="odc"))))


def test_modules_in_a_file_system_within(archive: Callable[..., bytes], image: Callable[[bytes], Path]) -> None:
    with pytest.raises(InputError, match=r"a file system of its own, squashfs-root\.img: give lsinitrd's listing"):
        read_initrd(str(image(archive(("init", "squashfs-root.img")))))


def test_a_bomb(
    compressed: Callable[[str, bytes], bytes], image: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "MAX_UNPACKED", 1 << 20)
    for method in COMPRESSORS:
        with pytest.raises(ArchiveError, match="more than 1048576 bytes"):
            read_image(image(compressed(method, bytes(8 << 20))))
    monkeypatch.setattr(initramfs, "MAX_UNPACKED", 16 << 20)
    monkeypatch.setattr(initramfs, "MAX_ENTRIES", 0)
    assert read_image(image(compressed("zstd", bytes(8 << 20)))).names == ()


def test_too_many_entries(
    archive: Callable[..., bytes], image: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "MAX_ENTRIES", 3)
    with pytest.raises(ArchiveError, match="has more than 3 entries"):
        read_image(image(archive()))


@pytest.mark.parametrize("method", ["", *COMPRESSORS])
def test_what_is_cut_or_flipped_is_refused_or_read(
    method: str,
    archive: Callable[..., bytes],
    compressed: Callable[[str, bytes], bytes],
    image: Callable[[bytes], Path],
) -> None:
    whole = compressed(method, archive()) if method else archive()
    rng = random.Random(method)
    for _ in range(60):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(min(len(data), 300))] ^= 1 << rng.randrange(8)
        with contextlib.suppress(ArchiveError):
            read_image(image(bytes(data)))
