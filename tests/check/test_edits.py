"""Edits: the fewest lines, each tried, and such as lose as little as possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.check import Configuration
from hvkernel.check.edits import edit_line, smallest_edit, strongest, without_needless

X86 = "CONFIG_MODULES=y\nCONFIG_64BIT=y\nCONFIG_HYPERVISOR_GUEST=y\n"
FIBRE = "CONFIG_NET=y\nCONFIG_SCSI=y\nCONFIG_SCSI_LOWLEVEL=y\nCONFIG_SCSI_FC_ATTRS=m\nCONFIG_HYPERV=y\n"


@pytest.mark.parametrize(
    ("text", "symbol", "how", "edits"),
    [
        (X86, "HYPERV_BALLOON", {}, ("CONFIG_HYPERV=y", "CONFIG_HYPERV_BALLOON=y")),
        ("CONFIG_64BIT=y\n", "HYPERV", {}, ("CONFIG_HYPERVISOR_GUEST=y", "CONFIG_HYPERV=y")),
        # The module that is in the way is built in, not switched off: something else may want it.
        (X86 + FIBRE, "HYPERV_STORAGE", {}, ("CONFIG_SCSI_FC_ATTRS=y",)),
        # And what is in the way altogether is switched off.
        (X86 + "CONFIG_SMP=y\nCONFIG_HYPERV=y\nCONFIG_HYPERV_VTL_MODE=y\n", "MSHV_ROOT", {"release": "6.18"},
         ("# CONFIG_HYPERV_VTL_MODE is not set", "CONFIG_MSHV_ROOT=y")),
        # Another page size is another member of a choice.
        ("CONFIG_ARM64_16K_PAGES=y\nCONFIG_HYPERV=y\n", "MSHV_ROOT", {"release": "6.18", "arch": "arm64"},
         ("CONFIG_ARM64_4K_PAGES=y", "CONFIG_MSHV_ROOT=y")),
        # Another word size would be another kernel.
        (X86.replace("CONFIG_64BIT=y", "# CONFIG_64BIT is not set") + "CONFIG_HYPERV=y\n", "PCI_HYPERV", {}, None),
        # A symbol that the data do not have is set without further ado.
        (X86, "EXT4_FS", {}, ("CONFIG_EXT4_FS=y",)),
    ],
)  # fmt: skip
def test_the_smallest_edit(
    text: str,
    symbol: str,
    how: dict[str, Any],
    edits: tuple[str, ...] | None,
    configuration: Callable[..., Configuration],
) -> None:
    base = configuration(text, **{"arch": "x86", **how})
    found = smallest_edit(base, symbol, lambda build: build.y(symbol))
    assert found == edits
    if edits is not None:
        assert base.evaluate(edits).y(symbol)
        assert [one for one in edits if base.evaluate([rest for rest in edits if rest != one]).y(symbol)] == []


def test_to_switch_off(configuration: Callable[..., Configuration]) -> None:
    base = configuration(X86 + "CONFIG_HYPERV=y\nCONFIG_HYPERV_BALLOON=y\n", arch="x86")
    off = smallest_edit(base, "HYPERV_BALLOON", lambda build: not build.enabled("HYPERV_BALLOON"), on=False)
    assert off == ("# CONFIG_HYPERV_BALLOON is not set",)
    # PARAVIRT is selected by HYPERV: saying no to it changes nothing, and nothing else is tried.
    assert smallest_edit(base, "PARAVIRT", lambda build: not build.enabled("PARAVIRT"), on=False) is None


def test_lines() -> None:
    assert [edit_line("A", value) for value in "nmy"] == ["# CONFIG_A is not set", "CONFIG_A=m", "CONFIG_A=y"]
    assert strongest(["CONFIG_A=m", "# CONFIG_B is not set", "CONFIG_A=y", "CONFIG_A=m"]) == (
        "CONFIG_A=y",
        "# CONFIG_B is not set",
    )


def test_what_needs_no_saying_is_left_out(configuration: Callable[..., Configuration]) -> None:
    """HYPERV=y brings HYPERV_TIMER and, by its default, HYPERV_KEYBOARD."""
    base = configuration(X86 + "CONFIG_INPUT=y\nCONFIG_SERIO=y\n", arch="x86")
    edits = ("CONFIG_HYPERV=y", "CONFIG_HYPERV_KEYBOARD=y", "CONFIG_HYPERV_TIMER=y")
    assert without_needless(base, edits, lambda build: build.y("HYPERV_KEYBOARD")) == ("CONFIG_HYPERV=y",)
