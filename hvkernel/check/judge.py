"""Judging a configuration by the rules of a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from hvkernel.boot.initrd import Initrd
from hvkernel.check.edits import Configuration, smallest_edit
from hvkernel.config.targets import Rule, Target
from hvkernel.kconfig import Build, Explanation
from hvkernel.kconfig.data import version_key
from hvkernel.kconfig.kbuild import is_hyperv, objects

__all__ = ["Problem", "TargetVerdict", "broken_boot_rules", "broken_rules", "judge"]

State = Literal["runs", "fails", "unfit"]
NEEDS: Final = MappingProxyType({"hv_storvsc": ("hv_vmbus", "scsi_mod"), "sd_mod": ("scsi_mod",)})
"""Modules on the way to the root, and those whose symbols they use."""

COMPANIONS: Final = (
    ("hv_storvsc", "SCSI_FC_ATTRS", "scsi_transport_fc"),
    ("scsi_mod", "SCSI_COMMON", "scsi_common"),
    ("sd_mod", "BLK_DEV_INTEGRITY_T10", "t10_pi"),
)
"""Modules on the way to the root, and those that they cannot be loaded without, with their symbols: an image must have
both. Source: ``modinfo -F depends`` of Debian's 6.1.192, and block/Makefile."""

_LEVEL: Final = MappingProxyType({"n": 0, "m": 1, "y": 2})


@dataclass(frozen=True, slots=True)
class Problem:
    """One rule that a configuration breaks.

    :ivar rule: the rule.
    :ivar symbol: the symbol that breaks it; of a one-of rule, the preferred one.
    :ivar wanted: what the rule asks for, in words.
    :ivar got: the symbol's value.
    :ivar line: line of the file that names the symbol, or None.
    :ivar reason: why it is broken, where it is not the symbol's value alone: a module outside the initramfs.
    :ivar explanation: the symbol's value, explained; None where it is not what is wrong.
    :ivar edits: lines that mend it; empty when none were found.
    :ivar verified: whether evaluating the file with the edits showed that they do. Of a symbol that the Kconfig data do
        not have, nothing more is known than that it would be set.
    """

    rule: Rule
    symbol: str
    wanted: str
    got: str
    line: int | None
    reason: str
    explanation: Explanation | None
    edits: tuple[str, ...]
    verified: bool


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """What becomes of a configuration on a target.

    :ivar state: ``runs``, ``fails``, or ``unfit``: no kernel of this architecture, word size or release goes there.
    :ivar reason: why it is unfit; of one that fails, what is to be known besides, or nothing.
    :ivar problems: rules broken that keep it from running.
    :ivar advice: rules broken that it runs without.
    :ivar unknown: symbols that rules ask for and neither the file nor the Kconfig data say anything of.
    """

    target: Target
    state: State
    reason: str
    problems: tuple[Problem, ...]
    advice: tuple[Problem, ...]
    unknown: tuple[str, ...]


def judge(configuration: Configuration, target: Target, initrd: Initrd) -> TargetVerdict:
    """Judge a configuration by a target's rules."""
    build = configuration.build
    unfit = _unfit(build, target)
    if unfit:
        return TargetVerdict(target, "unfit", unfit, (), (), ())
    if target.initrd == "none":
        initrd = Initrd((), exists=False)
    judge_ = _Judge(configuration, initrd)
    problems: list[Problem] = []
    advice: list[Problem] = []
    for rule in _asked(build, target, initrd):
        if _counts(rule, build):
            (advice if rule.kind == "advice" else problems).extend(judge_.problems(rule))
    broken = {problem.symbol for problem in problems}
    advice = [one for one in advice if one.symbol not in broken]
    state: State = "fails" if problems else "runs"
    return TargetVerdict(
        target, state, _remark(build, target) if problems else "", tuple(problems), tuple(advice), tuple(judge_.unknown)
    )


def broken_rules(build: Build, target: Target, initrd: Initrd) -> tuple[tuple[Rule, str], ...]:
    """Return the rules that keep a kernel from running on a target, each with a symbol that breaks it.

    What :func:`judge` finds of a kernel that fits, without looking for edits.
    """
    if target.initrd == "none":
        initrd = Initrd((), exists=False)
    rules = _Rules(build, initrd)
    asked = _asked(build, target, initrd)
    counting = (rule for rule in asked if rule.kind != "advice" and _counts(rule, build))
    return tuple((rule, name) for rule in counting for name in rules.broken(rule))


def broken_boot_rules(build: Build, target: Target, initrd: Initrd) -> tuple[str, ...]:
    """Return the symbols that keep a kernel from coming up on a target, or why it does not even start there."""
    unfit = _unfit(build, target)
    if unfit:
        return (unfit,)
    return tuple(name for rule, name in broken_rules(build, target, initrd) if rule.boot)


def _asked(build: Build, target: Target, initrd: Initrd) -> Iterator[Rule]:
    """The rules of a target, and those that follow from what is in an initramfs on the way to its root."""
    yield from target.rules
    on_the_way = (symbol for rule in target.rules if rule.boot and _counts(rule, build) for symbol in rule.symbols)
    if any(map(build.m, on_the_way)):
        yield from _unpacking(build, initrd)
        yield from _companions(build, initrd)


def _unpacking(build: Build, initrd: Initrd) -> Iterator[Rule]:
    """What an image asks for: the method by which it is compressed."""
    method = initrd.refused(build)
    if method is None:
        return
    yield Rule(
        kind="must",
        symbols=(f"RD_{method.upper()}",),
        least="y",
        boot=True,
        why=f"the initramfs is compressed by {method}, and modules on the way to the root are in it",
        evidence="init/initramfs.c: unpack_to_rootfs; usr/Kconfig",
    )


def _companions(build: Build, initrd: Initrd) -> Iterator[Rule]:
    """What the modules in an image ask for: those that they need. Whoever is given a list puts them in."""
    if not initrd.exact or initrd.modules is None:
        return
    for module, symbol, needed in COMPANIONS:
        if module in initrd.modules and build.m(symbol):
            yield Rule(
                kind="must",
                symbols=(symbol,),
                modules=(needed,),
                early=True,
                why=f"{module}, which is in the initramfs, cannot be loaded without {needed}",
                evidence="modules.dep of the kernel",
            )


def _unfit(build: Build, target: Target) -> str:
    if build.arch not in target.arches:
        return f"{target.name} runs {' and '.join(target.arches)} kernels, this one is {build.arch}"
    if build.bits not in target.bits:
        return f"{target.name} runs {' or '.join(map(str, target.bits))}-bit kernels, this one has {build.bits} bits"
    since = target.first_release(build.arch)
    if since is not None and version_key(build.release) < version_key(since):
        return f"{target.name} takes Linux {since} or later on {build.arch}, this one is {build.release}"
    return ""


def _remark(build: Build, target: Target) -> str:
    holding = (one for one in target.remarks if all(c.holds(build.value(c.symbol)) for c in one.when))
    return "; ".join(f"{one.text} (see {one.evidence})" for one in holding)


def _counts(rule: Rule, build: Build) -> bool:
    key = version_key(build.release)
    return (
        rule.arch in (None, build.arch)
        and (rule.since is None or version_key(rule.since) <= key)
        and (rule.until is None or key <= version_key(rule.until))
        and all(one.holds(build.value(one.symbol)) for one in rule.when)
    )


class _Rules:
    """What breaks a rule."""

    def __init__(self, build: Build, initrd: Initrd) -> None:
        self._build = build
        self._initrd = initrd
        self._modelled = frozenset(build.modelled)
        self.unknown: list[str] = []

    def broken(self, rule: Rule) -> Iterator[str]:
        """Yield the symbols that break a rule; of a one-of rule all of them, once none is on."""
        build = self._build
        if rule.wants == "one-of":
            if not any(self._on(rule, symbol, build) for symbol in rule.symbols):
                known = [symbol for symbol in rule.symbols if self._knows(symbol)]
                if known or build.whole:
                    yield from rule.symbols
                else:
                    self.unknown.extend(rule.symbols)
            return
        for symbol in rule.symbols:
            if rule.wants == "must-not":
                if build.enabled(symbol):
                    yield symbol
            elif not self._on(rule, symbol, build) and self._known(rule, symbol):
                yield symbol

    def _on(self, rule: Rule, symbol: str, build: Build) -> bool:
        """Whether a symbol is high enough, and, on the way to the root, at hand when it is needed."""
        value = _LEVEL.get(build.value(symbol), 0)
        if value < _LEVEL[rule.least]:
            return False
        return not (rule.loaded_early and value == 1) or self._at_hand(rule, symbol, build)

    def _at_hand(self, rule: Rule, symbol: str, build: Build) -> bool:
        if not build.enabled("BLK_DEV_INITRD"):
            return False
        # What the root is mounted by, dracut and initramfs-tools add without being told.
        added = self._initrd.exists and not self._initrd.exact and not rule.boot
        return added or self._holds(self._module(rule, symbol))

    def _holds(self, module: str) -> bool:
        initrd = self._initrd
        if not initrd.exists or initrd.modules is None:
            return initrd.exists
        brought = () if initrd.exact else (one for name in initrd.modules for one in NEEDS.get(name, ()))
        return module.replace("-", "_") in (*initrd.modules, *brought)

    def _module(self, rule: Rule, symbol: str) -> str:
        if rule.modules:
            return rule.modules[rule.symbols.index(symbol)]
        loadable = (one for one in objects(self._build.data_release) if not one.builtin)
        return next((one.name for one in loadable if one.symbol == symbol), symbol.lower())

    def _knows(self, symbol: str) -> bool:
        return symbol in self._modelled or self._build.wanted(symbol) is not None

    def _known(self, rule: Rule, symbol: str) -> bool:
        """Whether anything can be said of a symbol that is not on."""
        if self._knows(symbol):
            return True
        if rule.wants == "must-if-exists":
            return False
        if not self._build.whole:
            self.unknown.append(symbol)
            return False
        return True


class _Judge(_Rules):
    """And how it is mended."""

    def __init__(self, configuration: Configuration, initrd: Initrd) -> None:
        super().__init__(configuration.build, initrd)
        self._configuration = configuration

    def problems(self, rule: Rule) -> Iterator[Problem]:
        broken = self.broken(rule)
        if rule.wants == "one-of":
            if any(True for _ in broken):
                yield self._one_of(rule)
            return
        for symbol in broken:
            yield self._must_not(rule, symbol) if rule.wants == "must-not" else self._must(rule, symbol)

    def _must(self, rule: Rule, symbol: str) -> Problem:
        build = self._build
        edits = smallest_edit(self._configuration, symbol, lambda trial: self._on(rule, symbol, trial))
        if rule.loaded_early and build.m(symbol):
            wanted, reason = self._absent_module(rule, symbol)
            return self._problem(rule, symbol, wanted, reason, None, edits)
        wanted = "y or m" if rule.least == "m" and build.tristate(symbol) else "y"
        return self._problem(rule, symbol, wanted, "", self._explained(symbol), edits)

    def _absent_module(self, rule: Rule, symbol: str) -> tuple[str, str]:
        """What is wanted of a symbol that is m where its module is not at hand, and why it is not."""
        module = self._module(rule, symbol)
        if not self._build.enabled("BLK_DEV_INITRD"):
            return "y", f"{module} is a module, and a kernel with BLK_DEV_INITRD=n reads no initramfs"
        if not self._initrd.exists:
            return "y", f"{module} is a module, and there is no initramfs to load it from"
        return f"y, or {module} in the initramfs", f"{module} is a module that is not in the initramfs"

    def _one_of(self, rule: Rule) -> Problem:
        def kept(trial: Build) -> bool:
            return any(self._on(rule, symbol, trial) for symbol in rule.symbols)

        tried = [(symbol, smallest_edit(self._configuration, symbol, kept)) for symbol in rule.symbols]
        found = [(symbol, edits) for symbol, edits in tried if edits]
        symbol, edits = min(found, key=lambda one: len(one[1]), default=(rule.symbols[0], None))
        wanted = f"one of {', '.join(rule.symbols)}"
        if rule.loaded_early and self._build.m(symbol):
            return self._problem(rule, symbol, wanted, self._absent_module(rule, symbol)[1], None, edits)
        return self._problem(rule, symbol, wanted, "", self._explained(symbol), edits)

    def _must_not(self, rule: Rule, symbol: str) -> Problem:
        edits = smallest_edit(self._configuration, symbol, lambda trial: not trial.enabled(symbol), on=False)
        because = f" with {' and '.join(map(str, rule.when))}" if rule.when else ""
        return self._problem(rule, symbol, f"n{because}", "", self._explained(symbol), edits)

    def _explained(self, symbol: str) -> Explanation | None:
        """Why a symbol has its value; None of one that the Kconfig data do not have: it may exist all the same."""
        return self._build.explain(symbol) if self._build.known(symbol) or is_hyperv(symbol) else None

    def _problem(
        self,
        rule: Rule,
        symbol: str,
        wanted: str,
        reason: str,
        explanation: Explanation | None,
        edits: tuple[str, ...] | None,
    ) -> Problem:
        line = self._configuration.file.lines.get(symbol)
        edits = edits or ()
        verified = symbol in self._modelled and bool(edits)
        return Problem(rule, symbol, wanted, self._build.value(symbol), line, reason, explanation, edits, verified)
