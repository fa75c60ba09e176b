"""Values as functions of what is varied: against evaluating every single combination."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

import pytest

from hvkernel.boot.request import default_config
from hvkernel.kconfig import Build, ConfigError, KconfigTrees, evaluate
from hvkernel.kconfig.diagram import Diagrams
from hvkernel.kconfig.overlay import lay_over
from hvkernel.kconfig.symbolic import Symbolic

GRAPH = (
    *("MODULES", "HYPERV", "HYPERVISOR_GUEST", "SMP", "64BIT", "EFI", "ACPI", "PCI", "PCI_MSI", "NET", "SCSI"),
    *("HYPERV_STORAGE", "SCSI_FC_ATTRS", "HYPERV_UTILS", "HYPERV_NET", "HYPERV_BALLOON", "PCI_HYPERV", "NUMA"),
    *("CONNECTOR", "VSOCKETS", "HYPERV_VSOCKETS", "INPUT", "HID", "EXPERT", "DRM", "FB", "AGP", "PTP_1588_CLOCK"),
    *("DEBUG_FS", "HYPERV_TESTING", "BLOCK", "PARAVIRT", "HIGHMEM64G", "HIGHMEM4G", "X86_PAE", "HZ_100", "HZ_1000"),
    *("ARM64_64K_PAGES", "ARM64_16K_PAGES", "NO_SUCH_SYMBOL", "MLX5_CORE", "MLXFW", "VXLAN", "I2C", "NLS", "XEN"),
)
"""Symbols that are drawn from: much of the graph, all kinds of expression, and one that there is not."""

FILES = {"x86": "debian12-6.1.192-cloud-amd64", "arm64": "debian12-6.1.192-cloud-arm64"}


SIGNS = {"x86": ("ARM64_16K_PAGES", "ARM64_64K_PAGES"), "arm64": ("HYPERVISOR_GUEST",)}
"""What would make a file one of the other architecture."""


def drawn(arch: str, seed: str, count: int) -> list[str]:
    return Random(seed).sample([name for name in GRAPH if name not in SIGNS[arch]], count)


BuildOf = Callable[[str, str, str], Build]


@pytest.fixture(scope="module")
def build_of(storvsc_kconfig: Callable[[str], dict[str, str]]) -> BuildOf:
    """Evaluate a text for an architecture and release, on trees that are read once."""
    trees = KconfigTrees()

    def build(text: str, arch: str, release: str) -> Build:
        return evaluate(text, arch=arch, release=release, plugin_kconfigs=storvsc_kconfig(release), trees=trees)

    return build


def agree(build_of: BuildOf, text: str, arch: str, release: str, names: list[str]) -> int:
    """Compare every modelled symbol in every combination; return how many values were compared."""
    diagrams = Diagrams(dict.fromkeys(names, ("y", "m", "n")))
    base = build_of(text, arch, release)
    symbols = Symbolic(
        base, diagrams, {name: [(value, diagrams.one_of(name, (value,))) for value in "ymn"] for name in names}
    )
    tri = [name for name in (*base.modelled, *names) if base.value(name) in ("y", "m", "n") or name in names]
    nodes = {name: {value: symbols.equals(name, value) for value in "ymn"} for name in tri if symbols.has(name)}
    compared = 0
    for values in itertools.product("ymn", repeat=len(names)):
        laid = dict(zip(names, values, strict=True))
        build = build_of(lay_over(text, laid), arch, release)
        got = {name: next(v for v in "ymn" if diagrams.holds(nodes[name][v], laid)) for name in nodes}
        wanted = {name: build.value(name) for name in nodes}
        assert got == wanted, laid
        compared += len(got)
    return compared


@pytest.mark.parametrize("arch", ["x86", "arm64"])
@pytest.mark.parametrize("release", ["5.15", "6.1", "6.18", "7.1"])
def test_every_symbol_in_every_combination(arch: str, release: str, build_of: BuildOf) -> None:
    names = drawn(arch, f"{arch} {release}", 4)
    assert agree(build_of, default_config(arch) + "CONFIG_MODULES=y\n", arch, release, names) > 5000


@pytest.mark.parametrize(
    "names",
    [
        ["MODULES", "SCSI", "HYPERV", "HYPERV_STORAGE", "SCSI_FC_ATTRS"],
        ["64BIT", "HIGHMEM64G", "HIGHMEM4G", "X86_PAE"],
        ["HZ_100", "HZ_1000", "HZ_250"],
        ["EXPERT", "TTY", "VT", "INPUT"],
    ],
)
def test_what_the_axes_vary_together(names: list[str], build_of: BuildOf) -> None:
    for release in ("6.1", "6.18"):
        assert agree(build_of, default_config("x86") + "CONFIG_MODULES=y\n", "x86", release, names) > 2000


@pytest.mark.parametrize("arch", ["x86", "arm64"])
def test_over_a_real_config(arch: str, build_of: BuildOf, config_text: Callable[[str], str]) -> None:
    names = drawn(arch, f"real {arch}", 3)
    assert agree(build_of, config_text(FILES[arch]), arch, "6.1", names) > 1500


def test_the_line_that_was_written_last_makes_a_choice(build_of: BuildOf) -> None:
    d = Diagrams({"one": ("y", "n"), "two": ("y", "n")})
    first, second = (d.one_of(name, ("y",)) for name in ("one", "two"))
    base = build_of(default_config("x86"), "x86", "6.1")
    symbols = Symbolic(base, d, {"HZ_100": [("y", first)], "HZ_1000": [("y", second)]})
    assert symbols.equals("HZ_1000", "y") == second
    assert symbols.equals("HZ_100", "y") == d.both(first, d.opposite(second))
    assert symbols.equals("HZ_250", "y") == d.opposite(d.either(first, second))


def test_a_symbol_that_there_is_not_is_n(build_of: BuildOf) -> None:
    d = Diagrams({"a": ("y", "n")})
    symbols = Symbolic(build_of(default_config("x86"), "x86", "6.1"), d, {"NO_SUCH": [("y", d.one_of("a", ("y",)))]})
    assert not symbols.has("NO_SUCH")
    assert (symbols.equals("NO_SUCH", "n"), symbols.equals("NO_SUCH", "y")) == (1, 0)


def test_what_is_no_truth_value_is_refused(build_of: BuildOf) -> None:
    text = default_config("arm64") + "CONFIG_AS_VERSION=25000\n"
    d = Diagrams({"a": ("1", "2")})
    given = [("140000", d.one_of("a", ("1",))), ("150000", d.one_of("a", ("2",)))]
    symbols = Symbolic(build_of(text, "arm64", "6.1"), d, {"AS_VERSION": given})
    with pytest.raises(ConfigError) as error:
        symbols.equals("CPU_BIG_ENDIAN", "y")
    assert str(error.value) == (
        "<config> on Linux 6.1 (arm64): AS_VERSION is compared by size: AS_VERSION cannot be varied together"
    )


@pytest.mark.parametrize("release", ["6.6", "7.1"])
@pytest.mark.parametrize("file", ["", "# CONFIG_HZ_250 is not set\n", "CONFIG_HZ_300=y\n# CONFIG_HZ_250 is not set\n"])
def test_a_default_of_which_the_file_says_n(release: str, file: str, build_of: BuildOf) -> None:
    text = default_config("x86") + file
    for names in (["HZ_250", "HZ_100"], ["HZ_300"], ["HZ_1000", "HZ_300", "HZ_100"]):
        assert agree(build_of, text, "x86", release, names) > 300
