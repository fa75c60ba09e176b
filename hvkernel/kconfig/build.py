"""From a ``.config`` to a :class:`Build`: what each symbol comes out as when this kernel is configured with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hvkernel.kconfig.configfile import ARCHES as ARCH_NAMES
from hvkernel.kconfig.configfile import ConfigFile, parse_config, read_config, shown
from hvkernel.kconfig.data import BASELINE, Data, data_release
from hvkernel.kconfig.errors import ConfigError
from hvkernel.kconfig.explain import Explanation, explain
from hvkernel.kconfig.reader import TRISTATE, KconfigReader
from hvkernel.kconfig.trees import KconfigTree, KconfigTrees

__all__ = ["WITHDRAWN_COUNTS", "Build", "evaluate"]

_PAGE_SYMBOLS: Final = MappingProxyType({"ARM64_4K_PAGES": 4096, "ARM64_16K_PAGES": 16384, "ARM64_64K_PAGES": 65536})
WITHDRAWN_COUNTS: Final = ("5.15", "6.1", "6.6")
"""Releases whose reader lets a y that a later line withdrew still win its choice (scripts/kconfig/confdata.c), and that
take a choice's default even where the file says n of it. From 6.11 on neither holds."""
_SIGNS: Final = (
    ("arm64", ("ARM64", "ARCH_VEXPRESS", "ARM64_4K_PAGES", "ARM64_16K_PAGES", "ARM64_64K_PAGES")),
    ("x86", ("X86", "X86_64", "X86_32", "HYPERVISOR_GUEST", "X86_X2APIC", "X86_MSR", "IA32_EMULATION")),
)
"""Symbols whose presence in a file without header tells its architecture."""


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """What was given a tree, so that a later question finds the same values there even if others used it meanwhile."""

    tree: KconfigTree
    config: ConfigFile
    page_size: int | None
    bits: int | None

    def tree_of_values(self, notes: list[str]) -> KconfigReader:
        """The tree with this evaluation's values.

        :param notes: takes what the file said in vain, if the values had to be given.
        """
        tree = self.tree
        if not tree.holds(self):
            tree.clear()
            _assign(tree.kconf, tree.data, self.config, notes)
            _override(tree.kconf, self.config, tree.data.arch, self.page_size, self.bits)
            tree.keep(self)
        return tree.kconf


@dataclass(frozen=True)
class Build:
    """A configured kernel.

    :ivar release: the kernel version that the configuration is for: the header's (``6.1.192``), what was asked for,
        or the baseline (``6.1``).
    :ivar data_release: the release whose Kconfig data were used.
    :ivar arch: ``x86`` or ``arm64``; x86 covers both word sizes.
    :ivar bits: 32 or 64.
    :ivar page_size: the guest's PAGE_SIZE in bytes.
    :ivar hz: CONFIG_HZ.
    :ivar values: every symbol's value, without ``CONFIG_``: evaluated for the modelled symbols, as written for
        others that the file names.
    :ivar modelled: the symbols that Hyper-V and the boot path depend on, in the order of their definition.
    :ivar source: name of the file.
    :ivar notes: what the reader of a report should know: values that were not honoured, data of another release.
    """

    release: str
    data_release: str
    arch: str
    bits: int
    page_size: int
    hz: int
    values: Mapping[str, str]
    modelled: tuple[str, ...]
    source: str
    notes: tuple[str, ...]
    _config: ConfigFile = field(repr=False, compare=False)
    _evaluation: _Evaluation = field(repr=False, compare=False)

    def value(self, name: str) -> str:
        """The value of a symbol; ``n`` for one that has none."""
        return self.values.get(name, "n")

    def y(self, name: str) -> bool:
        """Whether a symbol is built in."""
        return self.values.get(name) == "y"

    def m(self, name: str) -> bool:
        """Whether a symbol is a module."""
        return self.values.get(name) == "m"

    def enabled(self, name: str) -> bool:
        """Whether a symbol is built in or a module (the kernel's ``IS_ENABLED``)."""
        return self.values.get(name) in ("y", "m")

    @property
    def file(self) -> ConfigFile:
        """The file that was evaluated."""
        return self._config

    @property
    def whole(self) -> bool:
        """Whether the file is a whole one, so that absent means *not set*; see :mod:`hvkernel.kconfig.configfile`."""
        return self._config.whole

    def wanted(self, name: str) -> str | None:
        """What the file says of a symbol; None where it does not name it."""
        return self._config.values.get(name)

    def prompted(self, name: str) -> bool:
        """Whether a modelled symbol can be set by hand, and not only by what selects it or its default."""
        return any(node.prompt for node in self._evaluation.tree.kconf.syms[name].nodes)

    def known(self, name: str) -> bool:
        """Whether the Kconfig data of the release have a symbol."""
        symbol = self._evaluation.tree.kconf.syms.get(name)
        return symbol is not None and bool(symbol.nodes)

    def tristate(self, name: str) -> bool:
        """Whether a symbol can be m; True for one that the Kconfig data do not have."""
        return not self.known(name) or self._evaluation.tree.kconf.syms[name].orig_type == TRISTATE

    def tree(self) -> KconfigReader:
        """The Kconfig tree with this build's values, until another build of the same trees is asked something."""
        return self._evaluation.tree_of_values([])

    def explain(self, name: str) -> Explanation:
        """Why a symbol has its value, with the first false clause of its dependencies and that clause's own reason."""
        kconf = self._evaluation.tree_of_values([])
        return explain(kconf, self._config.values, name, f"Linux {self.data_release} ({self.arch})")

    def lost(self) -> tuple[Explanation, ...]:
        """What the file asks for and silently does not get: each modelled symbol with a prompt that came out lower."""
        order = {"n": 0, "m": 1, "y": 2}
        names = [
            name
            for name in self.modelled
            if order.get(self.values[name], 0) < order.get(self._config.values.get(name, "n"), 0)
        ]
        return tuple(self.explain(name) for name in names if self.prompted(name))


def evaluate(
    source: str | Path | ConfigFile,
    *,
    arch: str | None = None,
    release: str | None = None,
    page_size: int | None = None,
    bits: int | None = None,
    plugin_kconfigs: Mapping[str, str] | None = None,
    trees: KconfigTrees | None = None,
) -> Build:
    """Evaluate a ``.config`` or a fragment as ``make olddefconfig`` would.

    :param source: path of a file, the text itself (a string with a line feed), or a parsed file.
    :param arch: architecture; None takes it from the file. One that contradicts the file is an error.
    :param release: kernel release; None takes the header's, or the baseline for a file without one.
    :param page_size: PAGE_SIZE in bytes to build with; None takes the file's.
    :param bits: word size to build with; None takes the file's.
    :param plugin_kconfigs: name to Kconfig text of each plugin (see :func:`hvkernel.kconfig.plugin_kconfig`).
    :param trees: Kconfig trees to use again; None reads the release's Kconfig for this evaluation alone.
    :raises ConfigError: for a bad file, Kconfig text or argument.
    """
    config = _read(source)
    arch = _arch(config, arch)
    version = release or config.header_version or BASELINE
    tree = (trees or KconfigTrees()).tree(data_release(version, config.name), arch, plugin_kconfigs or {})
    data = tree.data
    notes: list[str] = []
    if config.header_version is None and release is None:
        notes.append(f"{config.name} names no release: read as a defconfig of {BASELINE}")
    if not version.startswith(data.release) or version[len(data.release) :][:1].isdigit():
        notes.append(f"Kconfig data of {data.release} serve {version}")
    evaluation = _Evaluation(tree, config, page_size, bits)
    kconf = evaluation.tree_of_values(notes)
    modelled = tuple(s.name for s in kconf.unique_defined_syms if not _is_outside(s, data))
    values = {**config.values, **{symbol.name: symbol.str_value for symbol in kconf.unique_defined_syms}}
    return Build(
        release=version,
        data_release=data.release,
        arch=arch,
        bits=64 if values.get("64BIT") == "y" else 32,
        page_size=next((size for name, size in _PAGE_SYMBOLS.items() if values.get(name) == "y"), 4096),
        hz=int(values.get("HZ") or 250),
        values=MappingProxyType(values),
        modelled=modelled,
        source=config.name,
        notes=tuple(notes),
        _config=config,
        _evaluation=evaluation,
    )


def _read(source: str | Path | ConfigFile) -> ConfigFile:
    if isinstance(source, ConfigFile):
        return source
    if isinstance(source, str) and "\n" in source:
        return parse_config(source)
    return read_config(source)


def _arch(config: ConfigFile, asked: str | None) -> str:
    """The architecture, from the header, else from the symbols, else as asked for, else x86."""
    if asked is not None and asked not in ARCH_NAMES:
        raise ConfigError(config.name, None, f"architecture {asked!r} is not modelled: x86 and arm64 are")
    wanted = ARCH_NAMES[asked] if asked else None
    if config.values.get("ARM") == "y":
        raise config.error("CONFIG_ARM=y is 32-bit Arm, which Hyper-V does not run; only arm64 is", "ARM")
    if config.values.get("CPU_BIG_ENDIAN") == "y":
        raise config.error("CONFIG_CPU_BIG_ENDIAN=y: Hyper-V guests are little-endian only", "CPU_BIG_ENDIAN")
    found, sign = config.header_arch, None
    if found is None:
        for name, signs in _SIGNS:
            sign = next((s for s in signs if config.values.get(s) == "y"), None)
            if sign:
                found = name
                break
    if found and wanted and found != wanted:
        line = config.lines[sign] if sign else config.header_line
        by = f"CONFIG_{sign}=y" if sign else "its header"
        raise ConfigError(config.name, line, f"a .config of {found} (by {by}), but {wanted} was asked for")
    return found or wanted or "x86"


def _assign(kconf: KconfigReader, data: Data, config: ConfigFile, notes: list[str]) -> None:
    """Give each modelled symbol the file's value, as olddefconfig reads it."""
    chosen = []
    for symbol in kconf.unique_defined_syms:
        value = config.values.get(symbol.name)
        if value is None:
            if _is_outside(symbol, data):
                if config.whole:
                    symbol.set_value("n")
                elif symbol.name in data.always:
                    symbol.set_value(data.always[symbol.name])
            continue
        if symbol.choice and value != "n":
            chosen.append((config.lines.get(symbol.name, 0), symbol, value))
        elif symbol.choice and symbol.name in config.withdrawn and data.release in WITHDRAWN_COUNTS:
            chosen.append((config.withdrawn[symbol.name], symbol, "y"))
        if not symbol.set_value(value):
            line = config.lines.get(symbol.name)  # none of a value that an earlier olddefconfig gave
            where = config.name if line is None else f"{config.name}:{line}"
            notes.append(
                f"{where}: symbol value {shown(value)!r} invalid for {symbol.name}, ignored as olddefconfig does"
            )
    for _, symbol, value in sorted(chosen, key=lambda item: item[0]):
        symbol.choice.set_value(value)
        symbol.set_value(value)
    if data.release not in WITHDRAWN_COUNTS:
        for choice in kconf.unique_choices:
            _refuse_default(choice, config)


def _refuse_default(choice: Any, config: ConfigFile) -> None:
    """Select another member where the file says n of a choice's default (scripts/kconfig/symbol.c: sym_calc_choice)."""
    if config.values.get(getattr(choice.selection, "name", "")) != "n":
        return
    visible = [member for member in choice.syms if member.visibility]
    unnamed = [member for member in visible if member.name not in config.values]
    selected = unnamed[0] if unnamed else min(visible, key=lambda member: config.lines.get(member.name, 0))
    choice.set_value("y")
    selected.set_value("y")


def _is_outside(symbol: Any, data: Data) -> bool:
    """Whether a symbol is one of those outside the closure, modelled only as what selects."""
    node = symbol.nodes[0]
    return bool(node.filename == data.name and node.linenr >= data.outside_line)


def _override(kconf: KconfigReader, config: ConfigFile, arch: str, page_size: int | None, bits: int | None) -> None:
    """Apply what was asked for on top of the file."""
    if bits is not None:
        if bits not in ((32, 64) if arch == "x86" else (64,)):
            raise ConfigError(config.name, None, f"{bits} bits: {arch} kernels have {'32 or ' * (arch == 'x86')}64")
        symbol = kconf.syms["64BIT"]
        if symbol.str_value != ("y" if bits == 64 else "n"):
            symbol.set_value("y" if bits == 64 else "n")
    if page_size is not None:
        names = [name for name, size in _PAGE_SYMBOLS.items() if size == page_size and name in kconf.syms]
        if arch == "x86":
            if page_size != 4096:
                raise ConfigError(config.name, None, f"page size {page_size}: x86 has 4096 only")
        elif not names:
            raise ConfigError(config.name, None, f"page size {page_size}: arm64 has 4096, 16384 or 65536")
        else:
            kconf.syms[names[0]].choice.set_value("y")
            kconf.syms[names[0]].set_value("y")
