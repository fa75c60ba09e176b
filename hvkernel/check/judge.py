"""Judging a configuration by the rules of a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hvkernel.boot.initrd import Initrd
from hvkernel.check.edits import Configuration, smallest_edit
from hvkernel.check.rules import Rules, unfit
from hvkernel.config.targets import Rule, Target
from hvkernel.kconfig import Build, Explanation
from hvkernel.kconfig.kbuild import is_hyperv

__all__ = ["Problem", "TargetVerdict", "judge"]

State = Literal["runs", "fails", "unfit"]


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
    reason = unfit(build, target)
    if reason:
        return TargetVerdict(target, "unfit", reason, (), (), ())
    mender = _Mender(configuration, Rules(build, target, initrd))
    problems: list[Problem] = []
    advice: list[Problem] = []
    for rule in mender.rules.counting():
        (advice if rule.kind == "advice" else problems).extend(mender.problems(rule))
    broken = {problem.symbol for problem in problems}
    advice = [one for one in advice if one.symbol not in broken]
    state: State = "fails" if problems else "runs"
    return TargetVerdict(
        target,
        state,
        _remark(build, target) if problems else "",
        tuple(problems),
        tuple(advice),
        tuple(mender.rules.unknown),
    )


def _remark(build: Build, target: Target) -> str:
    holding = (one for one in target.remarks if all(c.holds(build.value(c.symbol)) for c in one.when))
    return "; ".join(f"{one.text} (see {one.evidence})" for one in holding)


class _Mender:
    """What breaks the rules of a target, explained and with the edits that mend it."""

    def __init__(self, configuration: Configuration, rules: Rules) -> None:
        self.rules = rules
        self._configuration = configuration
        self._build = configuration.build

    def problems(self, rule: Rule) -> Iterator[Problem]:
        broken = self.rules.broken(rule)
        if rule.wants == "one-of":
            if any(True for _ in broken):
                yield self._one_of(rule)
            return
        for symbol in broken:
            yield self._must_not(rule, symbol) if rule.wants == "must-not" else self._must(rule, symbol)

    def _must(self, rule: Rule, symbol: str) -> Problem:
        build = self._build
        edits = smallest_edit(self._configuration, symbol, lambda trial: self.rules.on(rule, symbol, trial))
        if rule.loaded_early and build.m(symbol):
            wanted, reason = self._absent_module(rule, symbol)
            return self._problem(rule, symbol, wanted, reason, None, edits)
        wanted = "y or m" if rule.least == "m" and build.tristate(symbol) else "y"
        return self._problem(rule, symbol, wanted, "", self._explained(symbol), edits)

    def _absent_module(self, rule: Rule, symbol: str) -> tuple[str, str]:
        """What is wanted of a symbol that is m where its module is not at hand, and why it is not."""
        module = self.rules.module(rule, symbol)
        if not self._build.enabled("BLK_DEV_INITRD"):
            return "y", f"{module} is a module, and a kernel with BLK_DEV_INITRD=n reads no initramfs"
        if not self.rules.initrd.exists:
            return "y", f"{module} is a module, and there is no initramfs to load it from"
        return f"y, or {module} in the initramfs", f"{module} is a module that is not in the initramfs"

    def _one_of(self, rule: Rule) -> Problem:
        def kept(trial: Build) -> bool:
            return any(self.rules.on(rule, symbol, trial) for symbol in rule.symbols)

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
        verified = symbol in self._build.modelled and bool(edits)
        return Problem(rule, symbol, wanted, self._build.value(symbol), line, reason, explanation, edits, verified)
