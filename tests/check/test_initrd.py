"""Modules and the initramfs: a symbol that is m is worth what the initramfs holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.check.initrd import read_initrd
from hvkernel.check.run import Checked
from hvkernel.config.errors import InputError

AMD64 = "debian12-6.1.192-amd64"
ROOT_PATH = ("hv_vmbus", "hv_storvsc", "scsi_mod", "sd_mod")

LSINITRAMFS = """\
.
kernel
usr/lib/modules/6.1.0-42-amd64/kernel/drivers/hv/hv_vmbus.ko
usr/lib/modules/6.1.0-42-amd64/kernel/drivers/scsi/hv_storvsc.ko.xz
usr/lib/modules/6.1.0-42-amd64/kernel/drivers/scsi/sd_mod.ko.zst
usr/lib/modules/6.1.0-42-amd64/modules.dep
"""
LSINITRD = """\
Image: /boot/initramfs.img: 17M
========================================================================
-rw-r--r--   1 root     root        52220 Jan  1  1970 usr/lib/modules/6.6.1/kernel/drivers/hv/hv_vmbus.ko.xz
lrwxrwxrwx   1 root     root           11 Jan  1  1970 usr/lib/modules/6.6.1/kernel/drivers/scsi/sd_mod.ko
========================================================================
"""


def test_a_list_and_listings(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("# modules\nhv_vmbus\nhid-hyperv # with a dash\n\n")
    assert read_initrd(str(file)).modules == {"hv_vmbus", "hid_hyperv"}
    file.write_text(LSINITRAMFS)
    assert read_initrd(str(file)).modules == {"hv_vmbus", "hv_storvsc", "sd_mod"}
    file.write_text(LSINITRD)
    assert read_initrd(str(file)).modules == {"hv_vmbus", "sd_mod"}
    assert read_initrd(None).has("anything")
    assert not read_initrd("none").has("hv_vmbus")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hv_vmbus\nnot a module\n", "list:2: module = 'not a module': must be a module's name"),
        (b"\x1f\x8b\x08\0\0\0\0", "list: is binary"),
        (b"\xff\xfe", "list: is not a list of modules: not UTF-8 text"),
        (None, "list: No such file or directory"),
    ],
)
def test_bad_lists(content: bytes | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("list").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_initrd("list")
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("missing", ROOT_PATH)
def test_each_module_on_the_way_to_the_root_is_missed(
    missing: str, tmp_path: Path, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    modules = tmp_path / "modules"
    modules.write_text("\n".join(name for name in ROOT_PATH if name != missing))
    (report,) = checked(real(AMD64), "hyperv-gen2", initrd=str(modules), boot=True).report.targets
    (problem,) = report.problems
    assert problem.because == (f"{missing} is a module that is not in the initramfs",)
    assert problem.edits
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("hung", True)


def test_modules_without_an_initramfs(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    found = checked(real(AMD64), "hyperv-gen2", initrd="none", boot=True)
    (report,) = found.report.targets
    assert [one.symbol for one in report.problems] == ["HYPERV", "HYPERV_STORAGE", "SCSI", "BLK_DEV_SD"]
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
