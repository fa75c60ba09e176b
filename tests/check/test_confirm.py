"""Which host a verdict is held against, and what is not modelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.check.run import Checked


@pytest.mark.parametrize(
    ("name", "lines", "target", "boot"),
    [
        ("debian12-6.1.192-amd64", (), "azure", ("up", "azure-gen2", True)),
        ("debian12-6.1.192-amd64", ("# CONFIG_EFI is not set",), "azure", ("up", "azure-gen1", True)),
        ("debian12-6.1.192-arm64", (), "azure", ("up", "azure-arm64", True)),
        ("arm64_defconfig_6.1", (), "wsl2", ("not-modelled", "", None)),
        ("x86_64_defconfig_6.1", ("CONFIG_ATA_PIIX=n",), "hyperv-gen1", ("panic", "ws2022/gen1", True)),
        ("x86_64_defconfig_6.1", (), "hyperv-gen1", ("not-modelled", "ws2022/gen1", None)),
        ("debian12-6.1.192-amd64", (), "kdump", ("not-modelled", "", None)),
    ],
)
def test_the_host(
    name: str,
    lines: tuple[str, ...],
    target: str,
    boot: tuple[str, str, bool | None],
    real: Callable[..., Path],
    checked: Callable[..., Checked],
) -> None:
    (report,) = checked(real(name, *lines), target, boot=True).report.targets
    assert report.boot is not None
    assert (report.boot.outcome, report.boot.host, report.boot.agrees) == boot


def test_a_kernel_that_does_not_fit_is_not_booted(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    (report,) = checked(real("debian12-6.1.192-arm64"), "hyperv-gen1", boot=True).report.targets
    assert (report.verdict, report.boot) == ("unfit", None)
