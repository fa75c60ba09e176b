"""One check, from what was asked for to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvkernel.boot import plugins as plugin_loading
from hvkernel.boot.initrd import read_initrd
from hvkernel.check import upgrade as upgrades
from hvkernel.check.edits import Configuration
from hvkernel.check.fragment import mend
from hvkernel.check.judge import Problem, TargetVerdict, judge
from hvkernel.check.remarks import asked_in_vain, no_such_symbols
from hvkernel.check.upgrade import Upgrade, simulate
from hvkernel.config.checkreport import Boot, Broken, Change, CheckReport, Kernel, TargetReport
from hvkernel.config.errors import InputError
from hvkernel.config.targets import Target, load_target, load_target_file, target_names
from hvkernel.kconfig import Build, ConfigFile, KconfigTrees, parse_config, read_config_text
from hvkernel.kconfig.data import BASELINE, data_release, version_key

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins

__all__ = ["ORDINARY", "CheckRequest", "Checked", "check"]

ORDINARY: Final = ("hyperv-gen1", "hyperv-gen2", "azure")
"""Targets that are judged when none is asked for, those of them that the kernel fits."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check, as asked for."""

    config: Path
    targets: tuple[str, ...] = ()
    """Names; ``all`` for all; empty for those of :data:`ORDINARY` that fit."""
    rules: Path | None = None
    """A target file of the user's own, judged besides."""
    release: str | None = None
    arch: str | None = None
    from_release: str | None = None
    to_release: str | None = None
    """Judge what ``olddefconfig`` of this release makes of the file."""
    initrd: str | None = None
    boot: bool = False
    """Hold each verdict against a modelled boot."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check."""

    report: CheckReport
    fragment: str
    """Lines that mend every problem that can be mended; none of them can go."""
    left: tuple[str, ...]
    """Problems of the file with the fragment laid over it, a line each."""


def check(request: CheckRequest, plugins: Plugins | None = None) -> Checked:
    """Judge a configuration.

    :raises InputError: an option or a target file is wrong.
    :raises ConfigError: the ``.config`` is, or there are no Kconfig data for the release.
    """
    _consistent(request)
    targets = _targets(request)
    initrd = read_initrd(request.initrd)
    plugins = (plugin_loading.load() if plugins is None else plugins).for_one_guest()
    trees = KconfigTrees()
    text = read_config_text(request.config)
    file = parse_config(text, name=str(request.config))

    upgrade = None
    release = request.release
    if request.to_release is not None:
        _forwards(file, request.from_release, request.to_release)
        upgrade = simulate(
            file,
            request.from_release,
            request.to_release,
            arch=request.arch,
            plugin_kconfigs=plugins.kconfigs,
            trees=trees,
        )
        file, release = upgrade.file, request.to_release
    configuration = Configuration(
        file, release=release, arch=request.arch, plugin_kconfigs=plugins.kconfigs, trees=trees
    )
    verdicts = [judge(configuration, target, initrd) for target in targets]
    if not request.targets:
        verdicts = [one for one in verdicts if one.state != "unfit" or one.target.name not in ORDINARY]
    fragment = mend(configuration, verdicts, initrd)
    boots: list[Boot | None] = [None] * len(verdicts)
    if request.boot:
        from hvkernel.check.confirm import confirm

        source: Path | str = as_text(file, configuration.build) if upgrade is not None else request.config
        boots = [confirm(one, source, configuration.build, initrd, plugins) for one in verdicts]
    report = CheckReport(
        kernel=_kernel(configuration.build),
        targets=tuple(_report(verdict, booted) for verdict, booted in zip(verdicts, boots, strict=True)),
        upgrade=None if upgrade is None else tuple(_change(one) for one in upgrade.changes),
        notes=(*_notes(configuration.build, upgrade, verdicts), *map(str, plugins.faults)),
    )
    left = (f"{name} is {fragment.after.value(name)}: {rule.why}" for rule, name in fragment.left)
    return Checked(report, fragment.text, tuple(dict.fromkeys(left)))


def as_text(file: ConfigFile, build: Build) -> str:
    """Return a configuration as the text of a ``.config``."""
    head = f"# Linux/{build.arch} {build.release} Kernel Configuration\n"
    lines = []
    for name, value in file.values.items():
        if value in ("y", "m") or value.lstrip("-").isdigit() or value.startswith("0x"):
            lines.append(f"CONFIG_{name}={value}\n")
        elif value == "n":
            lines.append(f"# CONFIG_{name} is not set\n")
    return head + "".join(lines)


def _notes(build: Build, upgrade: Upgrade | None, verdicts: Sequence[TargetVerdict]) -> tuple[str, ...]:
    told = {one.symbol for verdict in verdicts for one in (*verdict.problems, *verdict.advice)}
    if upgrade is None:
        return (*build.notes, *asked_in_vain(build, told), *no_such_symbols(build, told))
    told |= {change.symbol for change in upgrade.changes}
    return (*upgrade.notes, *asked_in_vain(upgrade.before, told), *no_such_symbols(build, told))


def _consistent(request: CheckRequest) -> None:
    for option, release in (
        ("--release", request.release),
        ("--from-release", request.from_release),
        ("--to-release", request.to_release),
    ):
        if release is not None:
            data_release(release, option)
    if request.from_release is not None and request.to_release is None:
        raise InputError("--from-release", "release", request.from_release, "needs --to-release")
    if request.to_release is not None and request.release is not None:
        raise InputError("--release", "release", request.release, "says what --from-release and --to-release say")


def _forwards(file: ConfigFile, from_release: str | None, to_release: str) -> None:
    """Refuse a way back: what was new would be said to be lost."""
    start = from_release or file.header_version or BASELINE
    if version_key(to_release) < version_key(start):
        raise InputError("--to-release", "release", to_release, f"must not be before {start}, which {file.name} is for")


def _targets(request: CheckRequest) -> list[Target]:
    asked = [name for name in request.targets if name != "all"]
    names: Sequence[str] = [*target_names(), *asked] if len(asked) < len(request.targets) else asked
    if not names and request.rules is None:
        names = ORDINARY
    found = [load_target(name) for name in dict.fromkeys(names)]
    return found if request.rules is None else [*found, load_target_file(request.rules)]


def _kernel(build: Build) -> Kernel:
    return Kernel(
        file=build.source,
        release=build.release,
        kconfig=build.data_release,
        arch=build.arch,
        bits=64 if build.bits == 64 else 32,
        page_size=build.page_size,
    )


def _report(verdict: TargetVerdict, booted: Boot | None) -> TargetReport:
    return TargetReport(
        target=verdict.target.name,
        title=verdict.target.title,
        verdict=verdict.state,
        reason=verdict.reason,
        problems=tuple(map(_broken, verdict.problems)),
        advice=tuple(map(_broken, verdict.advice)),
        unknown=verdict.unknown,
        boot=booted,
    )


def _broken(problem: Problem) -> Broken:
    chain = tuple(problem.explanation.lines()) if problem.explanation is not None else ()
    return Broken(
        kind=problem.rule.kind,
        symbol=problem.symbol,
        wanted=problem.wanted,
        got=problem.got,
        line=problem.line,
        because=(*((problem.reason,) if problem.reason else ()), *chain),
        edits=problem.edits,
        verified=problem.verified,
        why=problem.rule.why,
        evidence=problem.rule.evidence,
    )


def _change(change: upgrades.Change) -> Change:
    because = tuple(change.explanation.lines()) if change.explanation is not None else ()
    return Change(symbol=change.symbol, kind=change.kind, before=change.before, after=change.after, because=because)
