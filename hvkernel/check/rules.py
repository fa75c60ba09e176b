"""The rules of a target, asked of a build: what breaks them."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from hvkernel.boot.initrd import Initrd
from hvkernel.check.edits import LEVEL
from hvkernel.config.targets import Rule, Target
from hvkernel.kconfig import Build
from hvkernel.kconfig.data import version_key
from hvkernel.kconfig.kbuild import objects

__all__ = ["Rules", "broken_boot_rules", "broken_rules", "unfit"]

NEEDS: Final = MappingProxyType({"hv_storvsc": ("hv_vmbus", "scsi_mod"), "sd_mod": ("scsi_mod",)})
"""Modules on the way to the root, and those whose symbols they use."""

COMPANIONS: Final = (
    ("hv_storvsc", "SCSI_FC_ATTRS", "scsi_transport_fc"),
    ("scsi_mod", "SCSI_COMMON", "scsi_common"),
    ("sd_mod", "BLK_DEV_INTEGRITY_T10", "t10_pi"),
)
"""Modules on the way to the root, and those that they cannot be loaded without, with their symbols: an image must have
both. Source: ``modinfo -F depends`` of Debian's 6.1.192, and block/Makefile."""


def broken_rules(build: Build, target: Target, initrd: Initrd) -> tuple[tuple[Rule, str], ...]:
    """Return the rules that keep a kernel from running on a target, each with a symbol that breaks it.

    What :func:`hvkernel.check.judge.judge` finds of a kernel that fits, without looking for edits.
    """
    rules = Rules(build, target, initrd)
    counting = (rule for rule in rules.counting() if rule.kind != "advice")
    return tuple((rule, name) for rule in counting for name in rules.broken(rule))


def broken_boot_rules(build: Build, target: Target, initrd: Initrd) -> tuple[str, ...]:
    """Return the symbols that keep a kernel from coming up on a target, or why it does not even start there."""
    reason = unfit(build, target)
    if reason:
        return (reason,)
    return tuple(name for rule, name in broken_rules(build, target, initrd) if rule.boot)


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


def unfit(build: Build, target: Target) -> str:
    """Return why a kernel does not go on a target; empty where it does."""
    if build.arch not in target.arches:
        return f"{target.name} runs {' and '.join(target.arches)} kernels, this one is {build.arch}"
    if build.bits not in target.bits:
        return f"{target.name} runs {' or '.join(map(str, target.bits))}-bit kernels, this one has {build.bits} bits"
    since = target.first_release(build.arch)
    if since is not None and version_key(build.release) < version_key(since):
        return f"{target.name} takes Linux {since} or later on {build.arch}, this one is {build.release}"
    return ""


def _counts(rule: Rule, build: Build) -> bool:
    key = version_key(build.release)
    return (
        rule.arch in (None, build.arch)
        and (rule.since is None or version_key(rule.since) <= key)
        and (rule.until is None or key <= version_key(rule.until))
        and all(one.holds(build.value(one.symbol)) for one in rule.when)
    )


class Rules:
    """The rules of a target, and what of a build breaks them.

    :ivar build: the build.
    :ivar initrd: the initramfs, as the target has it.
    :ivar unknown: symbols that :meth:`broken` was asked about and of which nothing is known.
    """

    def __init__(self, build: Build, target: Target, initrd: Initrd) -> None:
        self.build = build
        self.initrd = Initrd((), exists=False) if target.initrd == "none" else initrd
        self.unknown: list[str] = []
        self._target = target
        self._modelled = frozenset(build.modelled)

    def counting(self) -> Iterator[Rule]:
        """The rules that count for this build, and those that follow from what is in its initramfs."""
        build = self.build
        counting = [rule for rule in self._target.rules if _counts(rule, build)]
        yield from counting
        if any(build.m(symbol) for rule in counting if rule.boot for symbol in rule.symbols):
            yield from _unpacking(build, self.initrd)
            yield from _companions(build, self.initrd)

    def broken(self, rule: Rule) -> Iterator[str]:
        """Yield the symbols that break a rule; of a one-of rule all of them, once none is on."""
        build = self.build
        if rule.wants == "one-of":
            if not any(self.on(rule, symbol, build) for symbol in rule.symbols):
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
            elif not self.on(rule, symbol, build) and self._known(rule, symbol):
                yield symbol

    def on(self, rule: Rule, symbol: str, build: Build) -> bool:
        """Whether a symbol is high enough, and, on the way to the root, at hand when it is needed."""
        value = LEVEL.get(build.value(symbol), 0)
        if value < LEVEL[rule.least]:
            return False
        return not (rule.loaded_early and value == 1) or self._at_hand(rule, symbol, build)

    def _at_hand(self, rule: Rule, symbol: str, build: Build) -> bool:
        if not build.enabled("BLK_DEV_INITRD"):
            return False
        # What the root is mounted by, dracut and initramfs-tools add without being told.
        added = self.initrd.exists and not self.initrd.exact and not rule.boot
        return added or self._holds(self.module(rule, symbol))

    def _holds(self, module: str) -> bool:
        initrd = self.initrd
        if not initrd.exists or initrd.modules is None:
            return initrd.exists
        brought = () if initrd.exact else (one for name in initrd.modules for one in NEEDS.get(name, ()))
        return module.replace("-", "_") in (*initrd.modules, *brought)

    def module(self, rule: Rule, symbol: str) -> str:
        """The module that a symbol of a rule builds."""
        if rule.modules:
            return rule.modules[rule.symbols.index(symbol)]
        loadable = (one for one in objects(self.build.data_release) if not one.builtin)
        return next((one.name for one in loadable if one.symbol == symbol), symbol.lower())

    def _knows(self, symbol: str) -> bool:
        return symbol in self._modelled or self.build.wanted(symbol) is not None

    def _known(self, rule: Rule, symbol: str) -> bool:
        """Whether anything can be said of a symbol that is not on."""
        if self._knows(symbol):
            return True
        if rule.wants == "must-if-exists":
            return False
        if not self.build.whole:
            self.unknown.append(symbol)
            return False
        return True
