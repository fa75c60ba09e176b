"""What comes to nothing without a rule that asks: values that are too high, and symbols that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.check import Configuration
from hvkernel.check.remarks import asked_in_vain, no_such_symbols
from hvkernel.check.run import Checked

GUEST = "CONFIG_MODULES=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_HYPERV=m\n"


def test_a_value_above_what_the_dependencies_allow(configuration: Callable[..., Configuration]) -> None:
    build = configuration(GUEST + "CONFIG_HYPERV_BALLOON=y\n", name="x", arch="x86").build
    (line,) = asked_in_vain(build)
    assert line == "x:4: CONFIG_HYPERV_BALLOON=y comes out m: needs HYPERV, which is m and allows no more"
    assert asked_in_vain(build, ["HYPERV_BALLOON"]) == ()


@pytest.mark.parametrize(
    ("release", "line", "said"),
    [
        ("6.1", "CONFIG_HYPERV_MSHV=y", True),  # what OpenVMM's local_install_cca_emu.rs sets
        ("6.1", "CONFIG_MSHV=y", True),
        ("6.1", "# CONFIG_HYPERV_MSHV is not set", False),
        ("6.1", "CONFIG_HYPERV_VMBUS=y", True),
        ("6.18", "CONFIG_HYPERV_VMBUS=y", False),
        ("6.19", "CONFIG_FB_HYPERV=m", False),
        ("7.0", "CONFIG_FB_HYPERV=m", True),
        ("6.1", "CONFIG_HYPERV_STORAGE=m", False),  # of a plugin's own Kconfig
        ("6.1", "CONFIG_SYS_HYPERVISOR=y", False),
        ("6.1", "CONFIG_EXT4_FS=y", False),
    ],
)
def test_a_symbol_that_a_release_does_not_have(
    release: str, line: str, said: bool, configuration: Callable[..., Configuration]
) -> None:
    build = configuration(f"{GUEST}{line}\n", name="x", release=release, arch="x86").build
    told = f"x:4: no such symbol in Linux {release} (x86): {line} builds nothing there"
    assert no_such_symbols(build) == ((told,) if said else ())


def test_what_a_rule_or_a_change_names_is_not_said_twice(
    real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    path = real("debian12-6.1.192-amd64", "CONFIG_HYPERV=y", "CONFIG_FB_HYPERV=m", "CONFIG_HYPERV_MSHV=y")
    there = checked(path, "hyperv-gen2", to_release="7.0").report
    assert [one for one in there.notes if "no such symbol" in one and "FB_HYPERV" in one] == []
    assert [one for one in there.notes if "no such symbol" in one and "HYPERV_MSHV" in one]
    at_once = checked(path, "hyperv-gen2", release="7.0").report
    assert [one for one in at_once.notes if "no such symbol" in one and "FB_HYPERV" in one]
