"""A real disk image through the guest's block device: every byte in, every byte out."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hvkernel.config.errors import InputError

SIZE = 64 << 20
GUESTS = [
    pytest.param("debian12-6.1.192-cloud-amd64", {}, {}, id="x86_64"),
    pytest.param("debian12-6.1.192-cloud-arm64", {}, {}, id="arm64-4K"),
    pytest.param("debian12bpo-6.12.117-arm64-16k", {}, {}, id="arm64-16K"),
    pytest.param("azurelinux3-64k-aarch64", {}, {}, id="arm64-64K"),
    pytest.param("alpine-virt.x86", {"memory": "5G"}, {}, id="i386-PAE"),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    return path


def disk(session: Any) -> Any:
    (found,) = session.kernel.block.disks
    return found


@pytest.mark.parametrize(("name", "vm", "more"), GUESTS)
def test_every_byte_of_the_file_arrives(
    name: str, vm: dict[str, Any], more: dict[str, Any], image: Path, start: Any
) -> None:
    session = start(name, {**vm, "disks": [str(image)]}, **more)
    block, device = session.kernel.block, disk(session)
    digest = hashlib.sha256()

    def read_all() -> None:
        step = 1024
        for sector in range(0, SIZE // 512, step):
            digest.update(block.read(device, sector, step))

    session.call(read_all)
    assert session.report().outcome == "up"
    assert digest.hexdigest() == hashlib.sha256(image.read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "vm", "more"), GUESTS)
def test_what_the_guest_writes_is_in_the_file_after_shutdown(
    name: str, vm: dict[str, Any], more: dict[str, Any], image: Path, start: Any
) -> None:
    before = image.read_bytes()
    session = start(name, {**vm, "disks": [str(image)]}, **more)
    block, device = session.kernel.block, disk(session)
    rng = random.Random(7)
    writes = [
        (rng.randrange(SIZE // 512 - 600), rng.randbytes(512 * rng.choice((1, 7, 8, 129, 512)))) for _ in range(12)
    ]

    def write_all() -> None:
        for sector, data in writes:
            block.write(device, sector, data)

    session.call(write_all)
    session.close()
    expected = bytearray(before)
    for sector, data in writes:
        expected[sector * 512 : sector * 512 + len(data)] = data
    assert image.read_bytes() == bytes(expected)


def test_a_real_partition_table(tmp_path: Path, start: Any, program: Any) -> None:
    sfdisk = program("sfdisk", "fdisk")
    image = tmp_path / "parted.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    script = "label: gpt\nstart=2048, size=32768\nstart=36864, size=16384\n"
    subprocess.run([sfdisk, "-q", str(image)], input=script, text=True, check=True, capture_output=True)
    report = start("debian12-6.1.192-cloud-amd64", {"disks": [str(image)]}).report()
    assert " sda: sda1 sda2" in [line.text for line in report.dmesg]


def test_one_image_cannot_be_two_disks_unless_nobody_writes(image: Path, tmp_path: Path, start: Any) -> None:
    link = tmp_path / "same.img"
    link.symlink_to(image)
    with pytest.raises(InputError, match="belongs to one disk") as error:
        start("debian12-6.1.192-cloud-amd64", {"disks": [str(image), {"path": str(link), "read_only": True}]})
    assert str(error.value).startswith(f"command line: disks[1] = {str(link)!r}: is disks[0] too")
    both = [{"path": str(path), "read_only": True} for path in (image, link)]
    session = start("debian12-6.1.192-cloud-amd64", {"disks": both})
    assert len(session.kernel.block.disks) == 2
