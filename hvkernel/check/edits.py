"""Edits of a ``.config`` that do what they promise: each is tried by evaluating the edited file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from hvkernel.kconfig import Build, ConfigFile, KconfigTrees, evaluate
from hvkernel.kconfig.data import BASELINE, data_release
from hvkernel.kconfig.kbuild import is_hyperv

__all__ = ["LEVEL", "Configuration", "edit_line", "smallest_edit", "strongest", "without_needless"]

_STEPS: Final = 16
"""Most edits that one problem may take; the longest chain of parents in the data has six symbols."""
_TRIALS: Final = 400_000
"""Symbols in all trials that are kept: some 40 trials of a real file, which has up to 10,000."""
LEVEL: Final = MappingProxyType({"n": 0, "m": 1, "y": 2})
"""Values of a tristate, in order."""


def edit_line(symbol: str, value: str) -> str:
    """Return the line that sets a symbol, as ``make`` writes it."""
    return f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}"


def _parse(line: str) -> tuple[str, str]:
    if line.startswith("#"):
        return line.removeprefix("# CONFIG_").removesuffix(" is not set"), "n"
    name, _, value = line.removeprefix("CONFIG_").partition("=")
    return name, value


class Configuration:
    """A parsed ``.config`` that can be evaluated again with lines added at its end.

    :param file: the file.
    :param release: kernel release; ``None`` as the file's header says.
    :param arch: architecture; ``None`` as the file says.
    :param plugin_kconfigs: gives name to Kconfig text of each plugin, for a release such as ``6.1``.
    """

    def __init__(
        self,
        file: ConfigFile,
        *,
        release: str | None = None,
        arch: str | None = None,
        plugin_kconfigs: Callable[[str], Mapping[str, str]],
        trees: KconfigTrees | None = None,
    ) -> None:
        self.file = file
        self._release, self._arch = release, arch
        self.plugin_kconfigs = plugin_kconfigs
        self._trees = trees or KconfigTrees()
        self._data_release = data_release(release or file.header_version or BASELINE, file.name)
        self._trials: dict[tuple[str, ...], Build] = {}
        self.build = self.evaluate()
        """The file as it is."""

    def evaluate(self, edits: Sequence[str] = ()) -> Build:
        """Evaluate the file with ``edits``, lines of a ``.config``, added at its end.

        The targets of one check try much the same edits, so the last trials are kept.
        """
        key = tuple(edits)
        found = self._trials.get(key)
        if found is None:
            while self._trials and (len(self._trials) + 1) * len(self.file.values) > _TRIALS:
                del self._trials[next(iter(self._trials))]
            found = self._trials[key] = self._evaluate(key)
        return found

    def _evaluate(self, edits: tuple[str, ...]) -> Build:
        file = self.file
        if edits:
            values, lines, last = dict(file.values), dict(file.lines), max(file.lines.values(), default=0)
            for number, edit in enumerate(edits, last + 1):
                symbol, value = _parse(edit)
                values[symbol], lines[symbol] = value, number
            file = replace(file, values=values, lines=lines)
        return evaluate(
            file,
            arch=self._arch,
            release=self._release,
            plugin_kconfigs=self.plugin_kconfigs(self._data_release),
            trees=self._trees,
        )


def smallest_edit(
    configuration: Configuration, symbol: str, kept: Callable[[Build], bool], *, on: bool = True, value: str = "y"
) -> tuple[str, ...] | None:
    """Return the fewest lines, along the symbol's explanation, after which ``kept`` holds; ``None``: there are none.

    :param symbol: the symbol that the rule is about.
    :param kept: whether a build keeps the rule; asked of every trial, so what is returned was seen to work.
    :param on: whether the symbol must go on, or off.
    :param value: what to set it to when nothing keeps it down.
    """
    edits: list[str] = []
    build = configuration.build
    for _ in range(_STEPS):
        if kept(build):
            return without_needless(configuration, edits, kept)
        step = _next_step(build, symbol, on, value, edits)
        if step is None:
            return None
        build, step = _gentlest(configuration, symbol, build, edits, step)
        edits.append(step)
    return None


def _gentlest(
    configuration: Configuration, symbol: str, build: Build, edits: Sequence[str], step: str
) -> tuple[Build, str]:
    """Return the build after a step, and the step: to switch a module off only where building it in does not do."""
    name, asked = _parse(step)
    if asked == "n" and build.m(name):
        kept = edit_line(name, "y")
        trial = configuration.evaluate([*edits, kept])
        if trial.y(name) and trial.explain(symbol).root.symbol != name:
            return trial, kept
    return configuration.evaluate([*edits, step]), step


def _next_step(build: Build, symbol: str, on: bool, value: str, edits: Sequence[str]) -> str | None:
    own = edit_line(symbol, value if on else "n")
    if not on:
        return None if own in edits else own
    explanation = build.explain(symbol)
    if explanation.parent is None and explanation.first_false_clause is None:
        # Nothing but its own line is in the way, or it cannot be set at all.
        return own if own not in edits and _settable(build, symbol) else None
    step = explanation.root.edit
    if step is None or step in edits:
        return own if own not in edits else None
    name, asked = _parse(step)
    if name == "64BIT":
        return None  # that would be another kernel
    stronger = edit_line(name, "y") if asked == "m" and value == "y" else step
    return stronger if stronger not in edits else None


def _settable(build: Build, symbol: str) -> bool:
    if not build.known(symbol):
        return not is_hyperv(symbol)  # of Hyper-V's own the data have all that the release has
    return build.explain(symbol).edit is not None or build.enabled(symbol)


def without_needless(
    configuration: Configuration, edits: Sequence[str], kept: Callable[[Build], bool]
) -> tuple[str, ...]:
    """Return those of ``edits`` that are needed for ``kept`` to hold: none of them can go."""
    needed = list(edits)
    for edit in edits:
        rest = [one for one in needed if one != edit]
        if len(rest) < len(needed) and kept(configuration.evaluate(rest)):
            needed = rest
    return tuple(needed)


def strongest(edits: Iterable[str]) -> tuple[str, ...]:
    """Return the edits with each symbol once, at its highest value."""
    values: dict[str, str] = {}
    for edit in edits:
        symbol, value = _parse(edit)
        if symbol not in values or LEVEL[value] > LEVEL[values[symbol]]:
            values[symbol] = value
    return tuple(edit_line(symbol, value) for symbol, value in values.items())
