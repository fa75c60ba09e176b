"""A whole check: what is judged when nothing is asked for, notes, and options that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.check.run import Checked, as_text
from hvkernel.check.upgrade import simulate
from hvkernel.config.errors import InputError
from hvkernel.config.targets import target_names
from hvkernel.kconfig import evaluate, parse_config


@pytest.mark.parametrize(
    ("name", "judged"),
    [
        ("alpine-virt.x86", ["hyperv-gen1"]),
        ("debian12-6.1.192-amd64", ["hyperv-gen1", "hyperv-gen2", "azure"]),
        ("debian12-6.1.192-arm64", ["hyperv-gen2", "azure"]),
    ],
)
def test_the_ordinary_targets_that_fit(
    name: str, judged: list[str], real: Callable[..., Path], checked: Callable[..., Checked]
) -> None:
    assert [one.target for one in checked(real(name)).report.targets] == judged


def test_all_and_a_name_that_is_none(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    config = real("debian12-6.1.192-cloud-amd64")
    assert [one.target for one in checked(config, "all", "azure").report.targets] == list(target_names())
    with pytest.raises(InputError, match="--target: target = 'aws': must be one of azure"):
        checked(config, "all", "aws")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"to_release": "5.15"}, "--to-release: release = '5.15': must not be before 6.1.192, which "),
        (
            {"from_release": "6.18", "to_release": "6.12"},
            "--to-release: release = '6.12': must not be before 6.18, which ",
        ),
        ({"release": "x"}, "--release: 'x' is not a kernel release such as 6.1 or 6.12.117"),
        ({"release": ""}, "--release: '' is not a kernel release such as 6.1 or 6.12.117"),
        ({"from_release": "y", "to_release": "6.18"}, "--from-release: 'y' is not a kernel release"),
        ({"to_release": "4.19"}, "--to-release: release 4.19 is older than 5.15, the oldest with Kconfig data"),
        ({"from_release": "6.1"}, "--from-release: release = '6.1': needs --to-release"),
    ],
)
def test_releases(how: dict[str, Any], text: str, real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    with pytest.raises(InputError) as caught:
        checked(real("debian12-6.1.192-cloud-amd64"), **how)
    assert str(caught.value).startswith(text)


def test_the_same_release_is_no_way_back(real: Callable[..., Path], checked: Callable[..., Checked]) -> None:
    report = checked(real("debian12-6.1.192-cloud-amd64"), to_release="6.1").report
    assert report.upgrade == ()


@pytest.mark.parametrize("name", ["debian12-6.1.192-amd64", "azurelinux3-64k-aarch64", "alpine-virt.x86_64"])
def test_what_is_booted_after_an_upgrade_is_what_was_judged(
    name: str, real_text: Callable[[str], str], configuration: Callable[..., Any]
) -> None:
    """The boot is given a text; it must come out as the build that the rules saw."""
    file = parse_config(real_text(name) + "CONFIG_HYPERV=y\n", name=name)
    texts = configuration(file).plugin_kconfigs
    upgrade = simulate(file, None, "6.18", plugin_kconfigs=texts)
    booted = evaluate(as_text(upgrade.file, upgrade.after), release="6.18", plugin_kconfigs=texts("6.18"))
    assert {symbol: booted.value(symbol) for symbol in booted.modelled} == {
        symbol: upgrade.after.value(symbol) for symbol in upgrade.after.modelled
    }
