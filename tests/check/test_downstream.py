"""What broke downstream within nine months of the split of HYPERV in 6.18: the line, and a fragment that boots.

Each case is a real configuration with the lines that the report names. ``check`` must name the symbol, and the
configuration with the fragment laid over it must come up in the model, where it did not before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hvkernel.check.run import Checked
from hvkernel.kconfig.data import RELEASES

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
        ["CONFIG_HYPERV=y", "CONFIG_HYPERV_STORAGE=y", "# CONFIG_SCSI_FC_ATTRS is not set", "CONFIG_EXT4_FS=y"],
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


def test_the_upgrade_says_what_is_lost(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    report = checked(real(AMD64), to_release="6.18").report
    assert report.upgrade is not None
    lost = {one.symbol: (one.before, one.after) for one in report.upgrade if one.kind == "lost"}
    assert lost["HYPERV"] == ("m", "n")
    assert lost["HYPERV_STORAGE"] == ("m", "n")
    assert lost["HYPERV_IOMMU"] == ("y", "n")
    assert any("symbol value 'm' invalid for HYPERV" in note for note in report.notes)
    assert [note.split(":")[0] for note in report.notes if note.startswith("Linux ")] == [
        "Linux 6.4", "Linux 6.10", "Linux 6.15"
    ]  # fmt: skip
    built_in = checked(real(AMD64, "CONFIG_HYPERV=y"), to_release="6.18").report
    assert built_in.upgrade is not None
    assert [one.symbol for one in built_in.upgrade if one.kind == "lost"] == []
    assert ("HYPERV_VMBUS", "new", "y") in [(one.symbol, one.kind, one.after) for one in built_in.upgrade]


@pytest.mark.parametrize(
    ("lines", "releases", "moved"),
    [
        ((), ("6.1", "6.3"), []),
        (("# CONFIG_HYPERV_UTILS is not set",), ("6.1", "6.12"), ["6.4"]),
        ((), ("6.10", "6.12"), []),
        (("CONFIG_HYPERV=y", "CONFIG_HYPERV_VTL_MODE=y"), ("6.18", "7.1"), ["6.19"]),
    ],
)
def test_what_moved_between_two_releases(
    lines: tuple[str, ...],
    releases: tuple[str, str],
    moved: list[str],
    real: Callable[..., Path],
    checked: Callable[..., Checked],
) -> None:
    before, after = releases
    report = checked(real(AMD64, *lines), from_release=before, to_release=after).report
    assert [note.split(":")[0].split()[1] for note in report.notes if note.startswith("Linux ")] == moved


def test_the_framebuffer_driver_is_gone(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    """7.0 has no FB_HYPERV: a kernel that had that alone has no screen."""
    lines = ("CONFIG_HYPERV=y", "CONFIG_FB=y", "CONFIG_FB_HYPERV=m", "# CONFIG_DRM_HYPERV is not set")
    found = checked(real(AMD64, *lines), "hyperv-gen2", from_release="6.18", to_release="7.0").report
    assert found.upgrade is not None
    assert ("FB_HYPERV", "gone", "m", None) in [(one.symbol, one.kind, one.before, one.after) for one in found.upgrade]
    (advice,) = [one for one in found.targets[0].advice if one.symbol == "DRM_HYPERV"]
    assert "FB_HYPERV was removed in 7.0" in advice.why
    assert advice.edits == ("CONFIG_DRM_HYPERV=m",) or advice.edits == ("CONFIG_DRM_HYPERV=y",)


@pytest.mark.parametrize("name", [AMD64, "debian12-6.1.192-arm64"])
@pytest.mark.parametrize(("before", "after"), [*pairwise(RELEASES), ("5.15", RELEASES[-1])])
def test_every_step_from_release_to_release(
    name: str, before: str, after: str, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    """A configuration that has HYPERV=y keeps its drivers through every release."""
    report = checked(real(name, "CONFIG_HYPERV=y"), "azure", from_release=before, to_release=after).report
    assert report.kernel.kconfig == after
    assert report.targets[0].verdict == "runs"
    assert report.upgrade is not None
    assert [one.symbol for one in report.upgrade if one.kind == "lost" and "HYPERV" in one.symbol] == []
