"""Verdicts: what breaks a rule, what is wanted instead, what is unknown, and who does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.boot.initrd import Initrd
from hvkernel.check import Configuration, TargetVerdict, judge
from hvkernel.check.rules import broken_boot_rules, broken_rules
from hvkernel.config.targets import Rule, load_target

X86 = "CONFIG_MODULES=y\nCONFIG_64BIT=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_HYPERV=m\n"
WHOLE = "# Linux/x86 6.1.192 Kernel Configuration\n# Automatically generated file; DO NOT EDIT.\n"
END = "# end of Kernel hacking\n"


@pytest.fixture
def verdict(configuration: Callable[..., Configuration]) -> Callable[..., TargetVerdict]:
    """Judge a text by rules alone."""

    def run(text: str, *rules: dict[str, Any], initrd: Initrd | None = None, **more: Any) -> TargetVerdict:
        made = tuple(Rule.model_validate({"why": "w", "evidence": "e", **rule}) for rule in rules)
        target = load_target("hyperv-gen1").model_copy(update={"name": "mine", "rules": made})
        return judge(configuration(text, **{"arch": "x86", **more}), target, initrd or Initrd())

    return run


def test_must_and_must_if_exists(verdict: Callable[..., TargetVerdict]) -> None:
    """The same symbol of a later release: the one is broken, the other does not count."""
    symbols = {"symbols": ["HYPERV_VMBUS"]}
    must = verdict(WHOLE + X86 + END, {"kind": "must", **symbols})
    (problem,) = must.problems
    assert problem.explanation is not None
    assert problem.explanation.lines() == ["HYPERV_VMBUS=n: no such symbol in Linux 6.1 (x86)"]
    assert (problem.edits, problem.verified) == ((), False)
    assert verdict(WHOLE + X86 + END, {"kind": "must-if-exists", **symbols}).state == "runs"
    assert verdict(X86, {"kind": "must-if-exists", **symbols}, release="6.18").state == "fails"


def test_what_the_data_do_not_have_is_not_said_to_be_missing(verdict: Callable[..., TargetVerdict]) -> None:
    """A whole file without XFS_FS has it off, a fragment says nothing of it, and neither that it does not exist."""
    rule = {"kind": "must", "symbols": ["XFS_FS"]}
    (problem,) = verdict(WHOLE + X86 + END, rule).problems
    assert problem.explanation is None
    assert problem.edits == ("CONFIG_XFS_FS=y",)
    assert not problem.verified
    fragment = verdict(X86, rule)
    assert (fragment.state, fragment.unknown) == ("runs", ("XFS_FS",))


def test_one_of_symbols_that_a_fragment_does_not_name(verdict: Callable[..., TargetVerdict]) -> None:
    rule = {"kind": "one-of", "symbols": ["XFS_FS", "EXT4_FS"]}
    assert verdict(X86, rule).unknown == ("XFS_FS", "EXT4_FS")
    named = verdict(X86 + "# CONFIG_EXT4_FS is not set\n", rule)
    assert (named.state, named.problems[0].wanted) == ("fails", "one of XFS_FS, EXT4_FS")
    assert verdict(X86 + "CONFIG_EXT4_FS=m\n", rule).state == "runs"


@pytest.mark.parametrize(
    ("symbol", "least", "wanted"),
    [("HYPERV_NET", "m", "y or m"), ("HYPERV_NET", "y", "y"), ("HYPERV_TESTING", "m", "y"), ("NO_DATA", "m", "y or m")],
)
def test_what_is_wanted_is_what_the_type_takes(
    symbol: str, least: str, wanted: str, verdict: Callable[..., TargetVerdict]
) -> None:
    text = WHOLE + X86 + END
    (problem,) = verdict(text, {"kind": "must", "symbols": [symbol], "least": least}).problems
    assert problem.wanted == wanted


@pytest.mark.parametrize(
    ("initrd", "wanted", "reason"),
    [
        (Initrd((), exists=False), "y", "hv_vmbus is a module, and there is no initramfs to load it from"),
        (
            Initrd((), exact=True),
            "y, or hv_vmbus in the initramfs",
            "hv_vmbus is a module that is not in the initramfs",
        ),
    ],
)
@pytest.mark.parametrize("flag", ["boot", "early"])
def test_a_module_that_is_not_at_hand(
    flag: str, initrd: Initrd, wanted: str, reason: str, verdict: Callable[..., TargetVerdict]
) -> None:
    text = X86 + "CONFIG_BLK_DEV_INITRD=y\n"
    rule = {"kind": "must", "symbols": ["HYPERV"], flag: True}
    (problem,) = verdict(text, rule, initrd=initrd).problems
    assert (problem.got, problem.wanted, problem.reason) == ("m", wanted, reason)
    assert problem.edits == ("CONFIG_HYPERV=y",)
    assert verdict(text, rule, initrd=Initrd(("hv_vmbus",), exact=True)).state == "runs"
    listed = verdict(text, rule, initrd=Initrd(("sd_mod",)))
    assert listed.state == ("fails" if flag == "boot" else "runs")  # dracut adds the root's file system by itself


@pytest.mark.parametrize(
    ("when", "value", "counts"),
    [("HYPERV=m", "m", True), ("HYPERV=y", "m", False), ("HYPERV!=n", "m", True), ("HYPERV!=m", "m", False)],
)
def test_conditions(when: str, value: str, counts: bool, verdict: Callable[..., TargetVerdict]) -> None:
    rule = {"kind": "must-not", "symbols": ["HYPERV"], "when": [when]}
    found = verdict(X86.replace("HYPERV=m", f"HYPERV={value}"), rule)
    assert (found.state == "fails") == counts
    assert [problem.wanted for problem in found.problems] == [f"n with {when}"] * counts


@pytest.mark.parametrize(
    ("target", "how", "reason"),
    [
        ("azure-cvm", {"arch": "arm64"}, "azure-cvm runs x86 kernels, this one is arm64"),
        ("azure-cvm", {"release": "5.15"}, "azure-cvm takes Linux 5.16 or later on x86, this one is 5.15"),
        ("vtl2", {"release": "6.12", "arch": "arm64"}, "vtl2 takes Linux 6.16 or later on arm64, this one is 6.12"),
        ("root", {"release": "6.12"}, "root takes Linux 6.15 or later on x86, this one is 6.12"),
    ],
)
def test_who_does_not_fit(
    target: str, how: dict[str, Any], reason: str, configuration: Callable[..., Configuration]
) -> None:
    text = "CONFIG_HYPERV=y\n" if how.get("arch") == "arm64" else X86
    made = configuration(text, **{"arch": "x86", **how})
    found = judge(made, load_target(target), Initrd())
    assert (found.state, found.reason, found.problems) == ("unfit", reason, ())
    assert broken_boot_rules(made.build, load_target(target), Initrd()) == (reason,)


def test_what_keeps_it_from_booting_is_part_of_what_is_broken(configuration: Callable[..., Configuration]) -> None:
    made, azure = configuration(X86 + "# CONFIG_VFAT_FS is not set\n"), load_target("azure")
    broken = broken_rules(made.build, azure, Initrd())
    symbols = [symbol for _, symbol in broken]
    assert "VFAT_FS" in symbols
    assert broken_boot_rules(made.build, azure, Initrd()) == tuple(symbol for rule, symbol in broken if rule.boot)
    assert {problem.symbol for problem in judge(made, azure, Initrd()).problems} == set(symbols)


def test_the_root_does_not_link_against_a_modular_bus(configuration: Callable[..., Configuration]) -> None:
    """6.18 lets it be configured; 7.1's own Kconfig lowers MSHV_ROOT instead."""
    text = X86.replace("HYPERV=m", "HYPERV=y") + "CONFIG_HYPERV_VMBUS=m\nCONFIG_MSHV_ROOT=y\n"
    found = judge(configuration(text, release="6.18"), load_target("root"), Initrd())
    assert [(one.symbol, one.got, one.wanted, one.edits) for one in found.problems] == [
        ("HYPERV_VMBUS", "m", "y", ("CONFIG_HYPERV_VMBUS=y",))
    ]
    later = configuration(text, release="7.1")
    assert (later.build.value("MSHV_ROOT"), judge(later, load_target("root"), Initrd()).state) == ("m", "runs")


def test_a_confidential_machine_is_not_told_to_want_what_it_ignores(
    real_text: Callable[[str], str], configuration: Callable[..., Configuration]
) -> None:
    text = real_text("azurelinux3-x86_64")
    for name in ("HYPERV_BALLOON", "FB_HYPERV", "UIO_HV_GENERIC"):
        text += f"# CONFIG_{name} is not set\n"
    text += "CONFIG_PCI_HYPERV=n\n"
    made = configuration(text)
    assert [one.symbol for one in judge(made, load_target("azure-cvm"), Initrd()).advice] == []
    assert {"HYPERV_BALLOON", "DRM_HYPERV", "PCI_HYPERV"} <= {
        one.symbol for one in judge(made, load_target("azure"), Initrd()).advice
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [("", True), ("# CONFIG_ATA_PIIX is not set\n", False), ("# CONFIG_BLK_DEV_SD is not set\n", False)],
)
def test_what_is_to_be_known_of_a_kernel_that_fails(
    line: str, said: bool, configuration: Callable[..., Configuration], real_text: Callable[[str], str]
) -> None:
    """A generation 1 machine starts a kernel without Hyper-V's drivers from its emulated disk."""
    gen1, gen2 = load_target("hyperv-gen1"), load_target("hyperv-gen2")
    made = configuration(real_text("x86_64_defconfig_6.1") + line)
    found = judge(made, gen1, Initrd())
    assert found.state == "fails"
    assert found.reason.startswith("it does come up from the emulated IDE disk") == said
    assert judge(made, gen2, Initrd()).reason == ""
