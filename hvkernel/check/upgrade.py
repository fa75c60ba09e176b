"""What ``make olddefconfig`` would do to a configuration in another release's tree, before anybody builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from hvkernel.check.edits import LEVEL
from hvkernel.kconfig import Build, ConfigFile, Explanation, KconfigTrees, evaluate
from hvkernel.kconfig.data import BASELINE, data_release, version_key
from hvkernel.kconfig.kbuild import is_hyperv

__all__ = ["Change", "Upgrade", "simulate"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a release changed, where the values of symbols alone do not tell it.

    :ivar release: the first release with it.
    :ivar symbol: symbol that must be on, before, for it to matter.
    :ivar arch: architecture that it is about, or None.
    :ivar text: what changed.
    :ivar evidence: where that is seen.
    """

    release: str
    symbol: str
    arch: str | None
    text: str
    evidence: str


MOVES: Final = (
    Move(
        "6.4",
        "HYPERV",
        "x86",
        "HYPERV_VTL_MODE is new: leave it n, a kernel with it does not come up on an ordinary machine",
        "drivers/hv/Kconfig; vyos/vyos-1x#5312",
    ),
    Move(
        "6.10",
        "HYPERV_UTILS",
        "x86",
        "copying files from the host left hv_utils: it takes UIO_HV_GENERIC and hv_fcopy_uio_daemon now",
        "drivers/hv/Makefile and tools/hv of 6.6.87 and 6.18.35",
    ),
    Move(
        "6.14",
        "MEMORY_HOTPLUG_DEFAULT_ONLINE",
        None,
        "MEMORY_HOTPLUG_DEFAULT_ONLINE is gone: MHP_DEFAULT_ONLINE_TYPE_*, a choice, replaced it, by default OFFLINE",
        "mm/Kconfig; Debian's 6.12 has it already",
    ),
    Move(
        "6.15",
        "HYPERV",
        None,
        "MSHV_ROOT is new: it is for root partitions, guests need none of it",
        "drivers/hv/Kconfig",
    ),
    Move(
        "6.16",
        "HYPERV",
        "arm64",
        "HYPERV_VTL_MODE is there on arm64, too: leave it n for an ordinary machine",
        "drivers/hv/Kconfig",
    ),
    Move(
        "6.18",
        "HYPERV",
        None,
        "HYPERV is a bool for the core alone, its m counts as n; bus and drivers hang on HYPERV_VMBUS, which is new",
        "drivers/hv/Kconfig; zabbly/linux#55, void-packages#58165",
    ),
    Move(
        "6.19",
        "HYPERV_VTL_MODE",
        "x86",
        "MSHV_VTL is new: the device through which a paravisor runs the lower trust level",
        "drivers/hv/Kconfig",
    ),
    Move(
        "7.0",
        "FB_HYPERV",
        None,
        "FB_HYPERV was removed: DRM_HYPERV is the only driver of the synthetic screen",
        "mainline commit 40227f2efcfb",
    ),
)
"""In order of release."""


@dataclass(frozen=True, slots=True)
class Change:
    """One symbol that comes out otherwise.

    :ivar symbol: its name.
    :ivar kind: ``lost``: it was on and is n; ``lowered``: y became m; ``raised``: it was off or m and is higher; and
        of symbols that build Hyper-V code, of which the Kconfig data have all, ``gone``: the release has no such
        symbol, and ``new``: the old release had no such symbol, and it is on.
    :ivar before: value in the old release, or None where that has no such symbol.
    :ivar after: value in the new one, or None likewise.
    :ivar explanation: why it has its new value; None for one that is gone.
    """

    symbol: str
    kind: Literal["lost", "lowered", "gone", "raised", "new"]
    before: str | None
    after: str | None
    explanation: Explanation | None

    @property
    def depth(self) -> int:
        """How far the symbol is from what is to blame: that itself has 1."""
        return len(self.explanation.lines()) if self.explanation is not None else 0


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The outcome of :func:`simulate`.

    :ivar before: the configuration in the old release.
    :ivar after: the same file, completed by the new one.
    :ivar changes: symbols with a prompt that changed, losses first, and among them what takes others with it.
    :ivar notes: what each release's reader says of the file, and between them what moved (:data:`MOVES`).
    :ivar file: what the new release's ``olddefconfig`` is given: a ``.config`` as the old one wrote it.
    """

    before: Build
    after: Build
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    file: ConfigFile


def simulate(
    file: ConfigFile,
    from_release: str | None,
    to_release: str,
    *,
    arch: str | None = None,
    plugin_kconfigs: Callable[[str], Mapping[str, str]],
    trees: KconfigTrees | None = None,
) -> Upgrade:
    """Complete a configuration by ``from_release``, then give the outcome to ``to_release``.

    :param from_release: ``None`` as the file's header says, or the baseline.
    :raises ConfigError: a release without data, or a bad file.
    """
    trees = trees or KconfigTrees()

    def build(config: ConfigFile, release: str | None) -> Build:
        texts = plugin_kconfigs(data_release(release or config.header_version or BASELINE, config.name))
        return evaluate(config, arch=arch, release=release, plugin_kconfigs=texts, trees=trees)

    before = build(file, from_release)
    completed = {name: value for name, value in before.values.items() if value != ""}
    given = replace(file, values={**file.values, **completed}, withdrawn={}, header_version=before.release, whole=True)
    after = build(given, to_release)
    ranks = ("lost", "gone", "lowered", "new", "raised")
    changes = sorted(_changes(before, after), key=lambda change: (ranks.index(change.kind), change.depth))
    return Upgrade(before, after, tuple(changes), (*before.notes, *_moves(before, after), *after.notes), given)


def _moves(before: Build, after: Build) -> list[str]:
    """The moves between two releases that matter to a configuration, a line each."""
    first, last = version_key(before.release), version_key(after.release)
    return [
        f"Linux {move.release}: {move.text} (see {move.evidence})"
        for move in MOVES
        if first < version_key(move.release) <= last
        and move.arch in (None, before.arch)
        and before.enabled(move.symbol)
    ]


def _changes(before: Build, after: Build) -> list[Change]:
    old, new = frozenset(before.modelled), frozenset(after.modelled)
    found = []
    for symbol in dict.fromkeys((*before.modelled, *after.modelled)):
        was = before.values[symbol] if symbol in old else None
        now = after.values[symbol] if symbol in new else None
        change = _change(symbol, was, now, before, after)
        if change is not None:
            found.append(change)
    return found


def _change(symbol: str, was: str | None, now: str | None, before: Build, after: Build) -> Change | None:
    if not {was, now} <= {"y", "m", "n", None}:
        return None
    if None in (was, now) and not is_hyperv(symbol):
        return None  # the data have what Hyper-V depends on in a release: to be without is not to be gone
    level, then = LEVEL.get(now or "n", 0), LEVEL.get(was or "n", 0)
    if level == then or not (after if now is not None else before).prompted(symbol):
        return None
    if now is None:
        return Change(symbol, "gone", was, None, None)
    if level < then:
        return Change(symbol, "lowered" if level else "lost", was, now, after.explain(symbol))
    return Change(symbol, "raised" if was is not None else "new", was, now, after.explain(symbol))
