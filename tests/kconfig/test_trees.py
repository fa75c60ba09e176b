"""One parsed tree serves many evaluations, and none of them shows in another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvkernel.kconfig import ConfigError, KconfigTrees, evaluate
from hvkernel.kconfig.data import ARCHES, RELEASES, load_data
from hvkernel.kconfig.reader import rewrite

CLOUD, FULL = "debian12-6.1.192-cloud-amd64", "debian12-6.1.192-amd64"


def test_evaluations_on_one_tree_are_as_on_a_fresh_one(
    config_text: Callable[[str], str], storvsc_kconfig: Callable[[str], dict[str, str]]
) -> None:
    trees, plugins = KconfigTrees(), storvsc_kconfig("6.1")
    for name, bits in ((CLOUD, None), (FULL, None), (CLOUD, 32), ("x86_64_defconfig_6.1", None), (CLOUD, None)):
        shared = evaluate(config_text(name), bits=bits, plugin_kconfigs=plugins, trees=trees)
        alone = evaluate(config_text(name), bits=bits, plugin_kconfigs=plugins)
        assert shared == alone


def test_a_build_explains_itself_after_the_tree_served_another(config_text: Callable[[str], str]) -> None:
    trees = KconfigTrees()
    without = config_text(CLOUD).replace("CONFIG_HYPERVISOR_GUEST=y\n", "# CONFIG_HYPERVISOR_GUEST is not set\n")
    first = evaluate(without, trees=trees)
    before = first.explain("HYPERV").lines()
    assert "HYPERVISOR_GUEST" in "\n".join(before)
    second = evaluate(config_text(CLOUD), trees=trees)
    assert second.explain("HYPERV").got != "n"
    assert first.explain("HYPERV").lines() == before


def test_a_refused_evaluation_leaves_nothing_behind(config_text: Callable[[str], str]) -> None:
    trees = KconfigTrees()
    with pytest.raises(ConfigError, match="page size 16384: x86 has 4096 only"):
        evaluate(config_text(FULL), page_size=16384, trees=trees)
    assert evaluate(config_text(CLOUD), trees=trees) == evaluate(config_text(CLOUD))


def test_a_tree_is_read_once_per_release_architecture_and_plugins() -> None:
    trees = KconfigTrees()
    tree = trees.tree("6.1", "x86", {})
    assert trees.tree("6.1", "x86", {}) is tree
    assert trees.tree("6.6", "x86", {}) is not tree
    assert trees.tree("6.1", "arm64", {}) is not tree
    assert trees.tree("6.1", "x86", {"p/Kconfig": "config P\n\tbool\n"}) is not tree


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("arch", ARCHES)
def test_our_data_need_no_rewriting(release: str, arch: str) -> None:
    data = load_data(release, arch)
    for number, line in enumerate(data.text.splitlines(keepends=True), 1):
        assert rewrite(data.name, number, line) == line
        assert not line.lstrip().startswith(("source", "osource", "rsource", "orsource"))
        assert not line.endswith("\\\n")
