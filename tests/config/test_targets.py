"""Targets: ours are whole and name evidence; a user's file with a mistake is refused by file, key, value and limit."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from hvkernel.config.errors import InputError
from hvkernel.config.profile import load_profile
from hvkernel.config.targets import load_target, load_target_file, target_names
from hvkernel.kconfig.data import RELEASES, load_data

NAMES = ("azure", "azure-cvm", "hyperv-gen1", "hyperv-gen2", "kdump", "root", "vtl2", "wsl2")
UNMODELLED = {
    "AMD_MEM_ENCRYPT", "BLK_DEV_NVME", "BTRFS_FS", "EROFS_FS", "EXT2_FS", "EXT4_FS", "INTEL_TDX_GUEST",
    "MEMORY_HOTPLUG_DEFAULT_ONLINE", "MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO", "MHP_DEFAULT_ONLINE_TYPE_ONLINE_KERNEL",
    "MHP_DEFAULT_ONLINE_TYPE_ONLINE_MOVABLE", "PROC_VMCORE", "SERIAL_8250_CONSOLE",
    "SERIAL_AMBA_PL011_CONSOLE", "SEV_GUEST", "SQUASHFS", "TCG_TPM", "TDX_GUEST_DRIVER", "XFS_FS",
}  # fmt: skip
"""Symbols of rules that the Kconfig data do not have; a misspelt one is not among them."""


def test_the_targets() -> None:
    assert target_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_whole(name: str) -> None:
    target = load_target(name)
    assert target.rules
    for host in filter(None, (target.host, target.arm64_host, target.bios_host)):
        profile, _, generation = host.partition("/gen")
        assert int(generation or load_profile(profile).default_generation) in load_profile(profile).generations


def test_every_symbol_of_a_rule_exists_somewhere() -> None:
    plugins = Path(__file__).parents[2] / "plugins"
    texts = [load_data(release, arch).text for release in RELEASES for arch in ("x86", "arm64")]
    texts += [path.read_text("utf-8") for path in plugins.glob("*/Kconfig*")]
    known = {line.split()[1] for text in texts for line in text.splitlines() if line.startswith("config ")}
    asked = {symbol for name in NAMES for rule in load_target(name).rules for symbol in rule.symbols}
    assert asked - known == UNMODELLED
    configs = (Path(__file__).parents[1] / "data" / "configs").glob("*.gz")
    named = {
        name for path in configs for name in re.findall(r"CONFIG_(\w+)", gzip.decompress(path.read_bytes()).decode())
    }
    assert named >= UNMODELLED


RULE = '[[rule]]\nkind = "must"\nsymbols = ["HYPERV"]\nwhy = "w"\nevidence = "e"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 'x", "is not TOML"),
        ("", "mine.toml: title: is required"),
        ("title = " + "[" * 100_000, "mine.toml: is nested too deeply"),
        ("#" * (1 << 20) + "\n", "mine.toml: is larger than 1048576 bytes"),
        ("title = 'x'\ncolour = 1\n", "colour: unknown key"),
        ("title = 'x'\ninclude = ['nowhere']\n", "include = ['nowhere']: must be a list of guest, memory, screen"),
        ("title = 'x'\nrule = 5\n", "rule = 5: must be tables"),
        ("title = 'x'\n" + RULE.replace("must", "should"), "kind = 'should'"),
        ("title = 'x'\n" + RULE.replace("HYPERV", "CONFIG hyperv"), "must be the name of a symbol, without CONFIG_"),
        ("title = 'x'\n" + RULE + "since = '6'\n", "since = '6': must be a kernel release, as 6.1"),
        ("title = 'x'\n" + RULE + "when = ['HYPERV']\n", "must be SYMBOL=y, SYMBOL=m or SYMBOL=n, or the same"),
        (
            "title = 'x'\n" + RULE + "modules = ['a', 'b']\n",
            "rule[0].modules = ['a', 'b']: must be one for each symbol: 2 names for 1 symbols",
        ),
        ("title = 'x'\ninclude = ['azure']\n" + RULE + "colour = 1\n", "rule[0].colour: unknown key"),
        ("title = 'x'\n" + RULE + "form = 'must'\n", "rule[0].form = 'must': is for an advice, this is a must"),
        (
            "title = 'x'\n" + RULE + "since = '6.10'\nuntil = '6.9'\n",
            "rule[0].until = '6.9': must not be before since, which is 6.10",
        ),
        ("title = 'x'\n[[remark]]\nwhen = []\ntext = 't'\nevidence = 'e'\n", "remark[0].when = []: "),
        ("title = 'x'\nhost = 'mars'\n", "host = 'mars': must be one of azure-arm64, azure-gen1"),
        ("title = 'x'\nbios_host = 'ws2022/gen3'\n", "bios_host = 'ws2022/gen3': must be one of"),
        ("title = 'x'\n" + RULE.replace('why = "w"\n', ""), "why: is required"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_target_file(Path("mine.toml"))
    assert str(caught.value).startswith("mine.toml: ")
    assert message in str(caught.value)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("title = 'x'\ninclude = ['hyperv-gen2']\n" + RULE)
    target = load_target_file(path)
    assert (target.name, target.title) == ("mine", "x")
    assert len(target.rules) == len(load_target("hyperv-gen2").rules) + 1
    with pytest.raises(InputError, match="No such file"):
        load_target_file(tmp_path / "none.toml")


def test_a_target_on_another_architecture_or_firmware() -> None:
    azure, vtl2, wsl2 = map(load_target, ("azure", "vtl2", "wsl2"))
    assert [azure.modelled_host("x86", efi=efi) for efi in (True, False)] == ["azure-gen2", "azure-gen1"]
    assert azure.modelled_host("arm64", efi=False) == "azure-arm64"
    assert (wsl2.modelled_host("x86", efi=False), wsl2.modelled_host("arm64", efi=True)) == ("wsl2", None)
    assert [vtl2.first_release(arch) for arch in ("x86", "arm64")] == ["6.4", "6.16"]


def test_conditions() -> None:
    conditions = {str(one): one for name in NAMES for rule in load_target(name).rules for one in rule.when}
    assert [conditions["DRM_HYPERV!=n"].holds(value) for value in "nmy"] == [False, True, True]
    assert [conditions["HYPERV_VMBUS=m"].holds(value) for value in "nmy"] == [False, True, False]


def test_no_such_target() -> None:
    with pytest.raises(InputError, match="must be one of azure, azure-cvm"):
        load_target("aws")
