"""A real .config is a fixed point: each symbol comes out as written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvkernel.kconfig import Build, evaluate
from hvkernel.kconfig.data import Data

FACTS = [
    # name, release, arch, bits, page size, HZ
    ("alpine-virt.x86", "6.1", "x86", 32, 4096, 100),
    ("alpine-virt.x86_64", "6.1", "x86", 64, 4096, 100),
    ("arm64_defconfig_6.1", "6.1.5", "arm64", 64, 4096, 250),
    ("azurelinux3-64k-aarch64", "6.6.134.1", "arm64", 64, 65536, 250),
    ("azurelinux3-x86_64", "6.6.134.1", "x86", 64, 4096, 250),
    ("debian12-6.1.192-amd64", "6.1.192", "x86", 64, 4096, 250),
    ("debian12-6.1.192-arm64", "6.1.192", "arm64", 64, 4096, 250),
    ("debian12-6.1.192-cloud-amd64", "6.1.192", "x86", 64, 4096, 250),
    ("debian12-6.1.192-cloud-arm64", "6.1.192", "arm64", 64, 4096, 250),
    ("debian12bpo-6.12.117-arm64-16k", "6.12.117", "arm64", 64, 16384, 250),
    ("wsl2-5.15.54-Microsoft-config-wsl", "5.15.54", "x86", 64, 4096, 100),
    ("x86_64_defconfig_6.1", "6.1.5", "x86", 64, 4096, 1000),
]
DIFFERENT = {
    # The file names no symbol that 5.14 or 5.15 added: its header says 5.15.54, but an older kernel's make wrote the
    # list. olddefconfig of 5.15 adds these three at their defaults, and so do we.
    "wsl2-5.15.54-Microsoft-config-wsl": {
        "SYSFB": "None -> y",
        "NET_VENDOR_MICROSOFT": "None -> y",
        "PTP_1588_CLOCK_OPTIONAL": "None -> y",
    },
}
"""Symbols that do not come out as written, and why."""


@pytest.mark.parametrize(("name", "release", "arch", "bits", "page_size", "hz"), FACTS)
def test_facts_are_read_from_the_file(
    build_of: Callable[..., Build], name: str, release: str, arch: str, bits: int, page_size: int, hz: int
) -> None:
    build = build_of(name)
    assert (build.release, build.arch, build.bits, build.page_size, build.hz) == (release, arch, bits, page_size, hz)


@pytest.mark.parametrize("name", [facts[0] for facts in FACTS])
def test_a_real_config_is_a_fixed_point(build_of: Callable[..., Build], name: str) -> None:
    build = build_of(name)
    whole = build.whole
    changed = {}
    for symbol in build.values:
        written = build.wanted(symbol)
        if written is None and not (whole and build.value(symbol) in ("m", "y")):
            continue
        if (written if written is not None else "n") != build.value(symbol):
            changed[symbol] = f"{written} -> {build.value(symbol)}"
    assert changed == DIFFERENT.get(name, {})
    assert build.lost() == ()


SIX_EIGHTEEN = """CONFIG_HYPERVISOR_GUEST=y
CONFIG_NET=y
CONFIG_NETDEVICES=y
CONFIG_SCSI=y
"""


@pytest.mark.parametrize(
    ("lines", "got", "lost"),
    [
        # an old distribution's modules: HYPERV became a bool
        (
            ["HYPERV=m", "HYPERV_NET=m", "HYPERV_STORAGE=m"],
            {"HYPERV": "n", "HYPERV_VMBUS": "n", "HYPERV_NET": "n", "HYPERV_STORAGE": "n"},
            ["HYPERV_NET", "HYPERV", "HYPERV_STORAGE"],
        ),
        # everything y: the new symbol comes by its default
        (
            ["HYPERV=y", "HYPERV_NET=y", "HYPERV_STORAGE=y"],
            {"HYPERV": "y", "HYPERV_VMBUS": "y", "HYPERV_NET": "y", "HYPERV_STORAGE": "y"},
            [],
        ),
        # the new symbol switched off takes the drivers with it
        (
            ["HYPERV=y", "HYPERV_VMBUS=n", "HYPERV_NET=y", "HYPERV_STORAGE=y"],
            {"HYPERV": "y", "HYPERV_VMBUS": "n", "HYPERV_NET": "n", "HYPERV_STORAGE": "n"},
            ["HYPERV_NET", "HYPERV_STORAGE"],
        ),
        # without its hidden prerequisite everything goes
        (
            ["HYPERVISOR_GUEST=n", "HYPERV=y", "HYPERV_NET=y", "HYPERV_STORAGE=y"],
            {"HYPERV": "n", "HYPERV_VMBUS": "n", "HYPERV_NET": "n", "HYPERV_STORAGE": "n"},
            ["HYPERV_NET", "HYPERV", "HYPERV_STORAGE"],
        ),
    ],
)
def test_what_olddefconfig_loses_in_silence_in_6_18(
    build_of: Callable[..., Build], lines: list[str], got: dict[str, str], lost: list[str]
) -> None:
    text = SIX_EIGHTEEN + "".join(f"CONFIG_{line}\n" for line in lines)
    build = build_of(text, release="6.18", arch="x86")
    assert {name: build.value(name) for name in got} == got
    assert [explanation.symbol for explanation in build.lost()] == lost
    invalid = [note for note in build.notes if "invalid" in note]
    assert bool(invalid) == ("HYPERV=m" in lines)


def test_a_value_that_its_type_does_not_take_is_ignored_and_named(build_of: Callable[..., Build]) -> None:
    build = build_of(SIX_EIGHTEEN + "CONFIG_HYPERV=m\n", release="6.18", arch="x86")
    assert build.notes == ("<config>:5: symbol value 'm' invalid for HYPERV, ignored as olddefconfig does",)


@pytest.mark.parametrize(
    ("release", "data", "notes"),
    [
        ("5.15.200", "5.15", ("Kconfig data of 5.15 serve 5.15.200",)),
        ("6.1.192", "6.1", ()),
        ("6.5", "6.1", ("Kconfig data of 6.1 serve 6.5",)),
        ("6.12.117", "6.12", ()),
        ("6.17.1", "6.12", ("Kconfig data of 6.12 serve 6.17.1",)),
        ("7.1.5", "7.1", ()),
        ("7.2", "7.1", ("Kconfig data of 7.1 serve 7.2",)),
    ],
)
def test_the_nearest_earlier_data_serve_a_release(
    build_of: Callable[..., Build], release: str, data: str, notes: tuple[str, ...]
) -> None:
    build = build_of("CONFIG_HYPERVISOR_GUEST=y\nCONFIG_HYPERV=y\n", release=release, arch="x86")
    assert (build.data_release, build.release) == (data, release)
    if release == "5.15.200":
        notes = ()
    assert build.notes == notes


def test_a_file_without_header_is_a_defconfig_of_the_baseline(build_of: Callable[..., Build]) -> None:
    build = build_of("alpine-virt.x86_64")
    assert build.notes == ("<config> names no release: read as a defconfig of 6.1",)
    assert build.y("SCSI"), "selected by ATA, and not written in the file"
    assert build.m("HYPERV_STORAGE"), "by its default, HYPERV"


def test_what_is_asked_for_overrides_the_file(build_of: Callable[..., Build]) -> None:
    assert build_of("debian12-6.1.192-arm64", page_size=65536).page_size == 65536
    assert build_of("debian12-6.1.192-amd64", bits=32).bits == 32
    small = build_of("debian12-6.1.192-amd64", bits=32)
    assert small.m("HYPERV")
    assert not small.enabled("PCI_HYPERV"), "pass-through is for 64-bit kernels only"


def test_hyperv_gone_from_a_whole_config_takes_its_drivers(
    build_of: Callable[..., Build], config_text: Callable[[str], str]
) -> None:
    text = config_text("debian12-6.1.192-amd64") + "# CONFIG_HYPERVISOR_GUEST is not set\n"
    build = build_of(text)
    assert {name for name in build.modelled if "HYPERV" in name and build.enabled(name)} == set()
    assert build.explain("HYPERV_STORAGE").root.edit == "CONFIG_HYPERVISOR_GUEST=y"


def test_selectors_from_outside_take_their_value_from_the_file_else_from_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "config X86\n\tdef_bool y\nconfig IN\n\tbool\n# Outside:\n"
    for name in ("ON", "OFF"):
        text += f'config {name}\n\tbool "{name}"\n\tselect IN\n'
    for always, written, value in (
        ({"ON": "y"}, "", "y"),
        ({"ON": "y"}, "# CONFIG_ON is not set\n", "n"),
        ({}, "", "n"),
    ):
        data = Data("6.1", "x86", text, text.count("\n", 0, text.index("# Outside:")) + 1, always)
        monkeypatch.setattr("hvkernel.kconfig.trees.load_data", lambda release, arch, data=data: data)
        build = evaluate(f"CONFIG_SMP=y\n{written}", arch="x86")
        assert build.value("IN") == value, (always, written)
        assert build.modelled == ("X86", "IN")
