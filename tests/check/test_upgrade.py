"""What ``olddefconfig`` of another release drops or adds, and in which words it is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from hvkernel.check import Configuration
from hvkernel.check.run import Checked
from hvkernel.check.upgrade import MOVES, simulate
from hvkernel.kconfig import parse_config
from hvkernel.kconfig.data import RELEASES, load_data, version_key

AMD64 = "debian12-6.1.192-amd64"
GUEST = "CONFIG_MODULES=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_NET=y\nCONFIG_NETDEVICES=y\nCONFIG_SCSI=y\n"
DRIVERS = ("HYPERV_NET", "HYPERV_STORAGE")


@pytest.mark.parametrize(
    ("text", "hyperv", "vmbus", "drivers", "note"),
    [
        (GUEST + "CONFIG_HYPERV=m\nCONFIG_HYPERV_NET=m\n", "n", "n", "n", "symbol value 'm' invalid for HYPERV"),
        (GUEST + "CONFIG_HYPERV=y\nCONFIG_HYPERV_NET=y\n", "y", "y", "y", ""),
        (GUEST + "CONFIG_HYPERV=y\n# CONFIG_HYPERV_VMBUS is not set\nCONFIG_HYPERV_NET=y\n", "y", "n", "n", ""),
        (GUEST.replace("HYPERVISOR_GUEST=y", "PCI=y") + "CONFIG_HYPERV=y\n", "n", "n", "n", ""),
    ],
    ids=["old modules", "built in", "the bus switched off", "no HYPERVISOR_GUEST"],
)
def test_the_four_ways_into_the_split(
    text: str, hyperv: str, vmbus: str, drivers: str, note: str, configuration: Callable[..., Configuration]
) -> None:
    """What 6.1's own conf made of these over an 11-symbol Kconfig shaped like 6.18's."""
    build = configuration(text, release="6.18", arch="x86").build
    assert [build.value(name) for name in ("HYPERV", "HYPERV_VMBUS", *DRIVERS)] == [hyperv, vmbus, drivers, drivers]
    assert any(note in one for one in build.notes) == bool(note) or not note


def test_what_takes_the_others_with_it_comes_first(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    changes = checked(real(AMD64), to_release="6.18").report.upgrade
    assert changes is not None
    depths = [len(one.because) for one in changes if one.kind == "lost"]
    assert changes[0].symbol == "HYPERV"
    assert changes[0].because == ("HYPERV=n: set to m, which a bool does not take; it counts as not set",)
    assert depths == sorted(depths)
    assert depths[-1] > 2


def test_a_choice_that_is_gone_is_explained(
    real_text: Callable[[str], str],
    configuration: Callable[..., Configuration],
    kernel_source: Path,
    conf: Path,
    recorder: ModuleType,
) -> None:
    """5.15 to 6.1 on x86, as 6.1's own conf does it."""
    text = real_text("wsl2-5.15.54-Microsoft-config-wsl")
    file = parse_config(text)
    upgrade = simulate(file, None, "6.1", plugin_kconfigs=configuration(file).plugin_kconfigs)
    (values,) = recorder.Conf(kernel_source, conf, "6.1", "x86").run([text])
    symbols, _, _ = recorder.modelled(load_data("6.1", "x86"))
    assert len(symbols) > 150
    assert {name: upgrade.after.value(name) for name in symbols} == {name: values.get(name, "n") for name in symbols}
    (change,) = upgrade.changes
    assert change.explanation is not None
    assert change.explanation.lines()[0] == "SPARSEMEM_MANUAL=n: needs SELECT_MEMORY_MODEL, which is n"


def test_moves_are_in_order_of_release() -> None:
    keys = [version_key(move.release) for move in MOVES]
    assert keys == sorted(keys)


def test_both_readers_notes(configuration: Callable[..., Configuration]) -> None:
    """A file without a header is of the baseline, and a release without data is served by an earlier one."""
    file = parse_config(GUEST, name="x")
    texts = configuration(file).plugin_kconfigs
    notes = simulate(file, None, "7.2", plugin_kconfigs=texts).notes
    assert (notes[0], notes[-1]) == ("x names no release: read as a defconfig of 6.1", "Kconfig data of 7.1 serve 7.2")


def test_the_upgrade_says_what_is_lost(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    report = checked(real(AMD64), to_release="6.18").report
    assert report.upgrade is not None
    lost = {one.symbol: (one.before, one.after) for one in report.upgrade if one.kind == "lost"}
    assert lost["HYPERV"] == ("m", "n")
    assert lost["HYPERV_STORAGE"] == ("m", "n")
    assert lost["HYPERV_IOMMU"] == ("y", "n")
    assert any("symbol value 'm' invalid for HYPERV" in note for note in report.notes)
    assert [note.split(":")[0] for note in report.notes if note.startswith("Linux ")] == [
        "Linux 6.4", "Linux 6.10", "Linux 6.15", "Linux 6.18"
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
        (("CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE=y",), ("6.12", "6.14"), ["6.14"]),
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
    assert any("DRM_HYPERV is the only driver of the synthetic screen" in note for note in found.notes)
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
