"""What ``--initrd`` names: a list, a listing, none; and every kind of file that is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvkernel.boot.initrd import Initrd, read_initrd
from hvkernel.config.errors import InputError

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
    file.write_text(
        "# modules\nhv_vmbus\nhid-hyperv # with a dash\n\n/lib/modules/6.1/kernel/drivers/scsi/sd_mod.ko.xz\n"
    )
    assert read_initrd(str(file)) == Initrd(("hv_vmbus", "hid_hyperv", "sd_mod"))
    file.write_text("hv_vmbus\nhv_netvsc ring_size=256 debug=1 # with parameters\n")
    assert read_initrd(str(file)) == Initrd(("hv_vmbus", "hv_netvsc"))
    file.write_text("./init\n./usr/lib/modules/6.1/kernel/drivers/scsi/sd_mod.ko\n")  # find . and cpio -t
    assert read_initrd(str(file)) == Initrd(("sd_mod",), exact=True)
    file.write_text(LSINITRAMFS)
    assert read_initrd(str(file)) == Initrd(("hv_vmbus", "hv_storvsc", "sd_mod"), exact=True)
    file.write_text(LSINITRD)
    assert read_initrd(str(file)) == Initrd(("hv_vmbus", "sd_mod"), exact=True)
    assert read_initrd(None).held == "all"
    assert read_initrd("none").held is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hv_vmbus\nnot a module\n", "list:2: module = 'not a module': must be one name or path a line"),
        (b"hv_vmbus and=so on\n", "list:1: module = 'hv_vmbus and=so on': must be one name or path a line"),
        (b"", "list: names no module; a kernel without an initramfs has --initrd none"),
        (b"# nothing\n\n", "list: names no module; a kernel without an initramfs has --initrd none"),
        (b"\x1f\x8b\x08\0\0\0\0", "list: is no initramfs that the kernel can read: gzip segment at byte 0 is damaged"),
        (b"\x7fELF\0", "list: is binary, but no initramfs: neither a cpio archive nor compressed"),
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
