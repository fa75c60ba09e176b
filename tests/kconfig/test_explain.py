"""An explanation names the first false clause, its parent, and the line to edit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvkernel.kconfig import Build


def test_the_chain_leads_to_what_must_be_edited(
    build_of: Callable[..., Build], config_text: Callable[[str], str]
) -> None:
    text = config_text("x86_64_defconfig_6.1") + "CONFIG_HYPERV=y\n# CONFIG_HYPERVISOR_GUEST is not set\n"
    found = build_of(text).explain("HYPERV_STORAGE")
    assert (found.symbol, found.wanted, found.got) == ("HYPERV_STORAGE", None, "n")
    assert found.first_false_clause == "HYPERV"
    assert found.lines() == [
        "HYPERV_STORAGE=n: needs HYPERV, which is n",
        "HYPERV=n: needs (X86 && X86_LOCAL_APIC && HYPERVISOR_GUEST) || (ARM64 && !CPU_BIG_ENDIAN), which is n",
        "HYPERVISOR_GUEST=n: set to n",
    ]
    assert found.root.symbol == "HYPERVISOR_GUEST"
    assert found.root.edit == found.edit == "CONFIG_HYPERVISOR_GUEST=y"


@pytest.mark.parametrize(
    ("symbol", "clause", "parent", "edit"),
    [
        ("HYPERV_VSOCKETS", "VSOCKETS", "VSOCKETS", "CONFIG_VSOCKETS=m"),
        ("UIO_HV_GENERIC", "UIO", "UIO", "CONFIG_UIO=m"),
        ("HYPERV_UTILS", "CONNECTOR", "CONNECTOR", "CONFIG_CONNECTOR=m"),
        ("FB_HYPERV", "FB", "FB", "CONFIG_FB=m"),
        ("HYPERV_TESTING", "DEBUG_FS", "DEBUG_FS", "CONFIG_DEBUG_FS=y"),
        ("MICROSOFT_MANA", "NET_VENDOR_MICROSOFT", "NET_VENDOR_MICROSOFT", "CONFIG_NET_VENDOR_MICROSOFT=y"),
        ("HYPERV_STORAGE", "SCSI", "SCSI", "CONFIG_SCSI=m"),
    ],
)
def test_each_parent_is_named(build_of: Callable[..., Build], symbol: str, clause: str, parent: str, edit: str) -> None:
    base = ["HYPERVISOR_GUEST", "HYPERV", "MODULES", "PCI", "PCI_MSI", "NET", "NETDEVICES", "ETHERNET", "SCSI_LOWLEVEL"]
    text = "".join(f"CONFIG_{name}=y\n" for name in base) + "CONFIG_PCI_HYPERV=y\n"
    off = ["VSOCKETS", "UIO", "CONNECTOR", "FB", "DRM", "DEBUG_FS", "NET_VENDOR_MICROSOFT", "SCSI", "ATA", "USB"]
    text += "".join(f"# CONFIG_{name} is not set\n" for name in off) + f"CONFIG_{symbol}=m\n"
    if symbol in ("HYPERV_TESTING",):
        text = text.replace(f"CONFIG_{symbol}=m", f"CONFIG_{symbol}=y")
    found = build_of(text, arch="x86").explain(symbol)
    assert found.got == "n"
    assert found.first_false_clause == clause
    assert found.parent is not None
    assert found.parent.symbol == parent
    assert found.edit == edit


def test_a_promptless_symbol_is_traced_through_its_default(build_of: Callable[..., Build]) -> None:
    found = build_of("x86_64_defconfig_6.1").explain("HYPERV_TIMER")
    assert found.first_false_clause == "HYPERV"
    assert found.edit == "CONFIG_HYPERV=y"


def test_a_symbol_of_another_release_is_no_symbol(build_of: Callable[..., Build]) -> None:
    assert build_of("debian12-6.1.192-amd64").explain("HYPERV_VMBUS").reason == "no such symbol in Linux 6.1 (x86)"


def test_a_symbol_that_is_only_read_is_said_to_be_so(build_of: Callable[..., Build]) -> None:
    found = build_of("debian12-6.1.192-amd64").explain("EXT4_FS")
    assert (found.got, found.reason) == ("m", "not among the modelled symbols of Linux 6.1 (x86)")


def test_a_selected_symbol_names_its_selector(build_of: Callable[..., Build]) -> None:
    found = build_of("CONFIG_HYPERVISOR_GUEST=y\nCONFIG_HYPERV=y\n", arch="x86").explain("PARAVIRT")
    assert (found.got, found.reason) == ("y", "selected by HYPERV")


def test_a_negated_clause_asks_for_the_symbol_to_go(build_of: Callable[..., Build]) -> None:
    wanted = ["HYPERVISOR_GUEST", "64BIT", "SMP", "HYPERV", "HYPERV_VTL_MODE", "MSHV_ROOT"]
    text = "".join(f"CONFIG_{name}=y\n" for name in wanted)
    found = build_of(text, release="6.18", arch="x86").explain("MSHV_ROOT")
    assert found.first_false_clause == "!HYPERV_VTL_MODE"
    assert found.edit == "# CONFIG_HYPERV_VTL_MODE is not set"


def test_m_below_y_names_what_limits_it(build_of: Callable[..., Build]) -> None:
    text = "CONFIG_HYPERVISOR_GUEST=y\nCONFIG_MODULES=y\nCONFIG_HYPERV=m\nCONFIG_HYPERV_BALLOON=y\n"
    found = build_of(text, arch="x86").explain("HYPERV_BALLOON")
    assert (found.wanted, found.got) == ("y", "m")
    assert found.lines()[0] == "HYPERV_BALLOON=m: needs HYPERV, which is m and allows no more"
    assert found.edit == "CONFIG_HYPERV=y"


def test_another_member_of_its_choice(build_of: Callable[..., Build]) -> None:
    found = build_of("CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_64K_PAGES=y\n", arch="arm64").explain("ARM64_4K_PAGES")
    assert found.lines() == ["ARM64_4K_PAGES=n: its choice went to ARM64_64K_PAGES"]
    assert found.edit == "CONFIG_ARM64_4K_PAGES=y"
