"""Modules and the initramfs: a symbol that is m is worth what the initramfs holds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.boot.request import read_request
from hvkernel.boot.session import boot
from hvkernel.check.run import Checked

AMD64 = "debian12-6.1.192-amd64"
ROOT_PATH = ("hv_vmbus", "hv_storvsc", "scsi_mod", "sd_mod")
COMPANIONS = ("scsi_common", "scsi_transport_fc", "t10-pi")
IMAGE = (*ROOT_PATH, *COMPANIONS, "ext4")


@pytest.mark.parametrize("missing", ROOT_PATH)
def test_each_module_on_the_way_to_the_root_is_missed(
    missing: str, tmp_path: Path, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    modules = tmp_path / "modules"
    modules.write_text("Image: x\n" + "".join(f"usr/lib/modules/6.1/{name}.ko\n" for name in IMAGE if name != missing))
    (report,) = checked(real(AMD64), "hyperv-gen2", initrd=str(modules), boot=True).report.targets
    (problem,) = report.problems
    assert (problem.got, problem.wanted) == ("m", f"y, or {missing} in the initramfs")
    assert problem.because == (f"{missing} is a module that is not in the initramfs",)
    assert problem.edits
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("hung", True)


DEPENDS = {
    "hv_vmbus": (),
    "hv_storvsc": ("scsi_mod", "hv_vmbus", "scsi_transport_fc", "scsi_common"),
    "scsi_mod": ("scsi_common",),
    "sd_mod": ("scsi_mod",),
    "scsi_transport_fc": ("scsi_mod",),
    "scsi_common": (),
}
"""``modinfo -F depends`` of the modules in Debian's linux-image-6.1.0-57-cloud-amd64 (6.1.192-3)."""


@pytest.mark.parametrize("missing", ["hv_vmbus", "scsi_mod", "scsi_common", "scsi_transport_fc"])
def test_an_image_has_what_its_modules_depend_on(
    missing: str, tmp_path: Path, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    """As Debian's own modules do: without one of these another one is named that cannot be loaded."""
    there = [name for name in DEPENDS if name != missing]
    modules = tmp_path / "modules"
    modules.write_text("".join(f"usr/lib/modules/6.1/{name}.ko.xz\n" for name in there))
    config = real("debian12-6.1.192-cloud-amd64")
    (problem,) = checked(config, "hyperv-gen2", initrd=str(modules)).report.targets[0].problems
    assert problem.because == (f"{missing} is a module that is not in the initramfs",)
    assert missing in {needed for name in there for needed in DEPENDS[name]}
    modules.write_text("".join(f"usr/lib/modules/6.1/{name}.ko.xz\n" for name in DEPENDS))
    assert checked(config, "hyperv-gen2", initrd=str(modules)).report.targets[0].verdict == "runs"


def test_an_image_without_the_roots_file_system(
    tmp_path: Path, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    """The model stops at the disk, so its boot says nothing of this."""
    modules = tmp_path / "modules"
    there = (*ROOT_PATH, *COMPANIONS)
    modules.write_text("".join(f"usr/lib/modules/6.1/{name}.ko\n" for name in there))
    (report,) = checked(real(AMD64), "hyperv-gen2", initrd=str(modules), boot=True).report.targets
    (problem,) = report.problems
    assert (problem.symbol, problem.got) == ("EXT4_FS", "m")
    assert problem.because == ("ext4 is a module that is not in the initramfs",)
    assert (problem.edits, problem.verified) == (("CONFIG_EXT4_FS=y",), False)
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("up", True)
    modules.write_text("".join(f"usr/lib/modules/6.1/{name}.ko\n" for name in (*there, "btrfs")))
    (report,) = checked(real(AMD64), "hyperv-gen2", initrd=str(modules)).report.targets
    assert report.verdict == "runs"


def test_modules_without_an_initramfs(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    found = checked(real(AMD64), "hyperv-gen2", initrd="none", boot=True)
    (report,) = found.report.targets
    assert [one.symbol for one in report.problems] == ["HYPERV", "HYPERV_STORAGE", "SCSI", "BLK_DEV_SD", "EXT4_FS"]
    assert report.problems[0].because == ("hv_vmbus is a module, and there is no initramfs to load it from",)
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("panic", True)
    (after,) = checked(
        real(AMD64, *found.fragment.splitlines()), "hyperv-gen2", initrd="none", boot=True
    ).report.targets
    assert after.boot is not None
    assert (after.verdict, after.boot.outcome) == ("runs", "up")


def test_a_kernel_that_reads_no_initramfs(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    (report,) = checked(real(AMD64, "# CONFIG_BLK_DEV_INITRD is not set"), "hyperv-gen2").report.targets
    assert report.problems[0].because == (
        "hv_vmbus is a module, and a kernel with BLK_DEV_INITRD=n reads no initramfs",
    )


def test_a_list_brings_what_its_modules_need(
    tmp_path: Path, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    modules = tmp_path / "modules"
    modules.write_text("hv_storvsc\nsd_mod\n")
    (report,) = checked(real(AMD64), "hyperv-gen2", initrd=str(modules), boot=True).report.targets
    assert report.verdict == "runs"
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("up", True)


@pytest.mark.parametrize("ram", ["n", "y"])
def test_an_image_by_a_method_that_the_kernel_is_built_without(
    ram: str,
    tmp_path: Path,
    real: Callable[..., Path],
    checked: Callable[..., Checked],
    program: Callable[[str, str], str],
) -> None:
    for name in IMAGE:
        (tmp_path / f"{name}.ko").touch()
    names = "".join(f"{name}.ko\n" for name in IMAGE).encode()
    cpio, zstd = program("cpio", "cpio"), program("zstd", "zstd")
    packed = subprocess.run([cpio, "-oHnewc", "--quiet"], cwd=tmp_path, input=names, capture_output=True, check=True)
    image = tmp_path / "initrd.img"
    image.write_bytes(subprocess.run([zstd, "-cq"], input=packed.stdout, capture_output=True, check=True).stdout)
    (whole,) = checked(real(AMD64), "hyperv-gen2", initrd=str(image), boot=True).report.targets
    assert whole.boot is not None
    assert (whole.verdict, whole.boot.outcome, whole.boot.agrees) == ("runs", "up", True)

    config = real(AMD64, "# CONFIG_RD_ZSTD is not set", f"CONFIG_BLK_DEV_RAM={ram}")
    found = checked(config, "hyperv-gen2", initrd=str(image), boot=True)
    (report,) = found.report.targets
    assert [one.symbol for one in report.problems] == ["RD_ZSTD"]
    assert found.fragment == "CONFIG_RD_ZSTD=y\n"
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("panic", True)
    lines = [line.text for line in boot(read_request(config=config, initrd=str(image))).dmesg]
    why = "compression method zstd not configured"
    assert {
        "y": f"rootfs image is not initramfs ({why}); looks like an initrd",
        "n": f"Initramfs unpacking failed: {why}",
    }[ram] in lines
