"""What broke downstream within nine months of the split of HYPERV in 6.18: the line, and a fragment that boots.

Each case is a real configuration with the lines that the report names. ``check`` must name the symbol, and the
configuration with the fragment laid over it must come up in the model, where it did not before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.check.run import Checked

AMD64 = "debian12-6.1.192-amd64"
SPLIT = {"to_release": "6.18"}

CASES = [
    # A distribution's old modules, carried over: HYPERV is a bool now, its m counts as not set, all of it vanishes.
    # There without an initramfs: "VFS: Unable to mount root fs".
    pytest.param(
        ("CONFIG_SCSI=y", "CONFIG_BLK_DEV_SD=y"),
        {**SPLIT, "initrd": "none"},
        "azure",
        "HYPERV",
        ["CONFIG_HYPERV=y", "CONFIG_HYPERV_STORAGE=y", "CONFIG_SCSI_FC_ATTRS=y", "CONFIG_EXT4_FS=y"],
        id="zabbly-linux-55",
    ),
    pytest.param((), SPLIT, "hyperv-gen2", "HYPERV", ["CONFIG_HYPERV=y"], id="void-packages-58165"),
    # All built in but the bus, by two lists of which the general one says no to what it does not know.
    pytest.param(
        ("CONFIG_HYPERV=y", "# CONFIG_HYPERV_VMBUS is not set"),
        {"release": "6.18"},
        "hyperv-gen2",
        "HYPERV_VMBUS",
        ["CONFIG_HYPERV_VMBUS=y"],
        id="openwrt-22846",
    ),
    pytest.param(
        (
            *("CONFIG_HYPERV=y", "# CONFIG_HYPERV_VMBUS is not set", "CONFIG_HYPERV_STORAGE=y", "CONFIG_HYPERV_NET=y"),
            *("CONFIG_SCSI=y", "CONFIG_BLK_DEV_SD=y", "CONFIG_PCI_HYPERV=y", "# CONFIG_SCSI_FC_ATTRS is not set"),
            "CONFIG_SQUASHFS=y",
        ),
        {"release": "6.18", "initrd": "none"},
        "hyperv-gen1",
        "HYPERV_VMBUS",
        ["CONFIG_HYPERV_VMBUS=y"],
        id="lede-14173",
    ),
]


@pytest.mark.parametrize(("lines", "how", "target", "symbol", "fragment"), CASES)
def test_the_line_is_named_and_the_fragment_boots(
    lines: tuple[str, ...],
    how: dict[str, Any],
    target: str,
    symbol: str,
    fragment: list[str],
    real: Callable[..., Path],
    checked: Callable[..., Checked],
) -> None:
    found = checked(real(AMD64, *lines), target, boot=True, **how)
    (report,) = found.report.targets
    assert report.verdict == "fails"
    assert report.problems[0].symbol == symbol
    assert report.problems[0].verified
    assert report.boot is not None
    assert report.boot.outcome != "up"
    assert found.fragment.splitlines() == fragment
    assert found.left == ()
    mended = checked(real(AMD64, *lines, *fragment), target, boot=True, **how)
    (after,) = mended.report.targets
    assert after.verdict == "runs"
    assert after.boot is not None
    assert (after.boot.outcome, after.boot.agrees) == ("up", True)


@pytest.mark.parametrize(
    ("name", "how"), [("azurelinux3-x86_64", {}), (AMD64, {"release": "6.18"})], ids=["6.6", "vyos-build-1193"]
)
def test_a_kernel_for_another_trust_level(
    name: str, how: dict[str, Any], real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    """VyOS (vyos-build#1193, #1236, vyos-1x#5312): drivers restored with HYPERV_VTL_MODE=y, and every screen blank."""
    lines = ("CONFIG_HYPERV=y", "CONFIG_HYPERV_VTL_MODE=y")
    config = real(name, *lines)
    found = checked(config, "hyperv-gen2", boot=True, **how)
    (report,) = found.report.targets
    assert [(one.symbol, one.got, one.line) for one in report.problems] == [
        ("HYPERV_VTL_MODE", "y", config.read_text().count("\n"))
    ]
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.agrees) == ("panic", True)
    assert found.fragment == "# CONFIG_HYPERV_VTL_MODE is not set\n"
    (after,) = checked(real(name, *lines, *found.fragment.splitlines()), "hyperv-gen2", boot=True, **how).report.targets
    assert after.boot is not None
    assert (after.verdict, after.boot.outcome, after.boot.agrees) == ("runs", "up", True)
    (other,) = checked(real(name, *lines), "vtl2", **how).report.targets
    assert other.verdict == "runs"
