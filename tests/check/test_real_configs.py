"""The twelve real configurations on every ordinary target: the verdict, and whether the modelled boot agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.check.run import Checked

HERE = Path(__file__).parents[1] / "data" / "configs"
CONFIGS = sorted(path.name.removesuffix(".config.gz") for path in HERE.glob("*.config.gz"))

VERDICTS = {
    "alpine-virt.x86": {"hyperv-gen1": "runs", "hyperv-gen2": "unfit", "azure": "unfit"},
    "alpine-virt.x86_64": {"hyperv-gen1": "runs", "hyperv-gen2": "runs", "azure": "runs", "wsl2": "fails"},
    "arm64_defconfig_6.1": {"hyperv-gen1": "unfit", "hyperv-gen2": "fails", "azure": "fails"},
    "azurelinux3-64k-aarch64": {"hyperv-gen2": "runs", "azure": "runs"},
    "azurelinux3-x86_64": {"hyperv-gen1": "runs", "hyperv-gen2": "runs", "azure": "runs", "azure-cvm": "runs"},
    "debian12-6.1.192-amd64": {"hyperv-gen1": "runs", "hyperv-gen2": "runs", "azure": "runs", "wsl2": "fails"},
    "debian12-6.1.192-arm64": {"hyperv-gen2": "runs", "azure": "runs"},
    "debian12-6.1.192-cloud-amd64": {"hyperv-gen1": "runs", "hyperv-gen2": "runs", "azure": "runs", "kdump": "runs"},
    "debian12-6.1.192-cloud-arm64": {"hyperv-gen2": "runs", "azure": "runs"},
    "debian12bpo-6.12.117-arm64-16k": {"hyperv-gen2": "runs", "azure": "runs", "vtl2": "unfit", "root": "unfit"},
    "wsl2-5.15.54-Microsoft-config-wsl": {"hyperv-gen1": "runs", "hyperv-gen2": "runs", "wsl2": "runs"},
    "x86_64_defconfig_6.1": {"hyperv-gen1": "fails", "hyperv-gen2": "fails", "azure": "fails", "wsl2": "fails"},
}
"""What the rules say of each; the modelled boot is asked below."""


def test_all_are_here() -> None:
    assert sorted(VERDICTS) == CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_every_verdict_is_confirmed_or_not_modelled(
    name: str, real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    report = checked(real(name), "all", boot=True).report
    found = {one.target: one for one in report.targets}
    assert {target: found[target].verdict for target in VERDICTS[name]} == VERDICTS[name]
    booted = {target: one.boot for target, one in found.items() if one.verdict != "unfit"}
    assert all(boot is not None for boot in booted.values())
    modelled = {target: boot for target, boot in booted.items() if boot and boot.outcome != "not-modelled"}
    assert [target for target, boot in modelled.items() if boot.agrees is not True] == []
    assert modelled
