"""The fragment: for every real configuration and target it mends what is wrong, none of its lines can go, and it boots.

Each is laid over the file as ``merge_config.sh`` does. Where the file is of a 6.1 kernel, that kernel's own ``conf``
completes the outcome, and the rules are asked once more of what it made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from hvkernel.boot.initrd import Initrd
from hvkernel.boot.plugins import Plugins
from hvkernel.check import Configuration, Fragment, judge, mend
from hvkernel.check.confirm import confirm
from hvkernel.check.rules import broken_rules
from hvkernel.config.targets import Rule, load_target, target_names
from hvkernel.kconfig import ConfigFile, parse_config
from hvkernel.kconfig.overlay import lay_over

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
NAMES = sorted(path.name.removesuffix(".config.gz") for path in CONFIGS.glob("*.gz"))
TARGETS = {name: load_target(name) for name in target_names()}
INITRDS = {"every-module": Initrd(), "none": Initrd((), exists=False)}
UNSAID = {("alpine-virt.x86", "kdump"), ("alpine-virt.x86_64", "azure-cvm")}
"""These files are excerpts that do not name KEXEC and AMD_MEM_ENCRYPT: a verdict lists them as unknown."""


def laid_over(text: str, fragment: Fragment) -> str:
    return lay_over(text, parse_config(fragment.text).values) if fragment.edits else text


@pytest.mark.parametrize("initrd", INITRDS)
@pytest.mark.parametrize("name", NAMES)
def test_it_mends_is_minimal_and_boots(
    name: str,
    initrd: str,
    configuration: Callable[..., Configuration],
    plugins: Plugins,
    real_text: Callable[[str], str],
) -> None:
    text, held = real_text(name), INITRDS[initrd]
    before = configuration(text, name=name)
    for target in TARGETS.values():
        verdict = judge(before, target, held)
        if verdict.state != "fails":
            continue
        fragment = mend(before, [verdict], held)
        assert fragment.left == (), target.name
        for line in fragment.edits:
            rest = before.evaluate([one for one in fragment.edits if one != line])
            assert broken_rules(rest, target, held), f"{target.name}: {line} was not needed"
        mended = laid_over(text, fragment)
        after = judge(configuration(mended, name=name), target, held)
        assert (after.state, after.problems) == ("runs", ()), target.name
        boot = confirm(after, mended, configuration(mended, name=name).build, held, plugins)
        assert boot is not None
        assert (boot.outcome, boot.agrees) in (("up", True), ("not-modelled", None)), target.name


@pytest.mark.parametrize("arch", ["x86", "arm64"])
def test_the_kernels_own_conf_keeps_it(
    arch: str,
    configuration: Callable[..., Configuration],
    real_text: Callable[[str], str],
    kernel_source: Path,
    conf: Path,
    recorder: ModuleType,
) -> None:
    cases = []
    for name in recorder.BASES[("6.1", arch)]:
        text = real_text(name)
        before = configuration(text, name=name)
        for target in TARGETS.values():
            for held in INITRDS.values():
                verdict = judge(before, target, held)
                if verdict.state == "fails":
                    fragment = mend(before, [verdict], held)
                    cases.append((name, target, held, fragment, laid_over(text, fragment)))
    assert len(cases) > 10
    made: list[Mapping[str, str]] = recorder.Conf(kernel_source, conf, "6.1", arch).run([text for *_, text in cases])
    for (name, target, held, fragment, _), values in zip(cases, made, strict=True):
        asked = parse_config(fragment.text).values
        assert {symbol: values.get(symbol, "n") for symbol in asked} == asked, f"{name} on {target.name}"
        whole = ConfigFile(name, dict(values), {}, arch, "6.1", None, True)
        if (name, target.name) not in UNSAID:
            assert broken_rules(configuration(whole).build, target, held) == (), f"{name} on {target.name}"


def test_what_one_line_makes_needless_is_left_out(configuration: Callable[..., Configuration]) -> None:
    """NLS alone is mended by NLS=y; HYPERV_NET, which is wanted as well, selects it."""
    lines = ("MODULES", "64BIT", "HYPERVISOR_GUEST", "HYPERV", "NET", "NETDEVICES")
    text = "".join(f"CONFIG_{name}=y\n" for name in lines) + "# CONFIG_ACPI is not set\n"
    before = configuration(text, arch="x86", release="6.6")
    rules = tuple(Rule(kind="must", symbols=(name,), why="w", evidence="e") for name in ("NLS", "HYPERV_NET"))
    verdict = judge(before, TARGETS["hyperv-gen1"].model_copy(update={"rules": rules}), Initrd())
    assert [problem.edits for problem in verdict.problems] == [("CONFIG_NLS=y",), ("CONFIG_HYPERV_NET=y",)]
    fragment = mend(before, [verdict], Initrd())
    assert (fragment.text, fragment.left) == ("CONFIG_HYPERV_NET=y\n", ())
    assert fragment.after.y("NLS")


def test_targets_that_contradict_each_other(
    configuration: Callable[..., Configuration], real_text: Callable[[str], str]
) -> None:
    text = real_text("azurelinux3-x86_64") + "CONFIG_HYPERV_VTL_MODE=y\n"
    before = configuration(text)
    verdicts = [judge(before, TARGETS[name], Initrd()) for name in ("vtl2", "hyperv-gen2")]
    assert [verdict.state for verdict in verdicts] == ["runs", "fails"]
    fragment = mend(before, verdicts, Initrd())
    assert fragment.edits == ("# CONFIG_HYPERV_VTL_MODE is not set",)
    assert [(rule.kind, symbol) for rule, symbol in fragment.left] == [("must", "HYPERV_VTL_MODE")]
