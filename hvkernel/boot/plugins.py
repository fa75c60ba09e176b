"""Loading plugins: by entry point, for everyone alike, and never letting one of them take the guest down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from hvkernel.api import hooks
from hvkernel.boot.workshop import Workshop

_CONTRACT_TEXT = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class PluginFault:
    """A plugin that could not be used, or a hook of it that raised."""

    plugin: str
    """``distribution[entry point]``."""
    where: str
    """What was being done: ``import``, ``contract``, ``register``, or the name of a hook."""
    text: str

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One loaded plugin, as ``hvkernel plugins`` prints it."""

    name: str
    distribution: str
    version: str
    contract: str
    hooks: tuple[str, ...]
    module: str
    """Package that the entry point names."""


@dataclass(slots=True)
class Plugins:
    """Loaded plugins: a pluggy manager of their own, what went wrong in loading them, and what their boots share."""

    manager: pluggy.PluginManager
    infos: list[PluginInfo] = field(default_factory=list)
    faults: list[PluginFault] = field(default_factory=list)
    workshop: Workshop = field(default_factory=Workshop)
    """What the boots with these plugins share."""

    def for_one_guest(self) -> Plugins:
        """Return the same plugins with a list of faults of their own, so that one boot does not tell of another's."""
        return replace(self, faults=list(self.faults))

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginInfo, Any]]:
        """Call ``hook`` in every plugin that implements it, in the order of their names.

        Yields ``(plugin, result)`` where a result was returned; a plugin that raises becomes a
        :class:`PluginFault` and the others are still called.
        """
        for info in self.infos:
            if hook not in info.hooks:
                continue
            implementation = getattr(self.manager.get_plugin(info.name), hook)
            try:
                result = implementation(**arguments)
            except Exception as error:  # a stranger's code may raise anything
                self.fault(info, hook, f"{type(error).__name__}: {error}")
                continue
            if result is not None:
                yield info, result

    def kconfigs(self, release: str) -> Mapping[str, str]:
        """Return the Kconfig text of each plugin that has one for ``release``, by ``plugin/Kconfig``.

        They are asked once, but for those that raise: each guest is to hear of that.
        """
        texts = self.workshop.kconfigs.get(release)
        if texts is None:
            faults = len(self.faults)
            texts = {f"{info.name}/Kconfig": text for info, text in self.call("hv_kconfig", release=release)}
            if len(self.faults) == faults:
                self.workshop.kconfigs[release] = texts
        return texts

    def blame(self, error: BaseException, where: str) -> bool:
        """Record ``error`` against the plugin whose code raised it; False when no plugin's code was on the way."""
        packages = {info.module.partition(".")[0]: info for info in self.infos}
        frames = []
        at = error.__traceback__
        while at is not None:
            frames.append(at.tb_frame.f_globals.get("__name__", "").partition(".")[0])
            at = at.tb_next
        for name in reversed(frames):
            if name in packages:
                self.fault(packages[name], where, f"{type(error).__name__}: {error}")
                return True
        return False

    def fault(self, info: PluginInfo, where: str, text: str) -> None:
        """Record that ``info`` failed at ``where``; the guest goes on without what it would have brought."""
        self.faults.append(PluginFault(f"{info.distribution}[{info.name}]", where, text))


def load(entries: Iterable[EntryPoint] | None = None) -> Plugins:
    """Import every plugin and check it against the contract.

    :param entries: the entry points to load; by default all that are installed in group ``hvkernel``.
    """
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    plugins = Plugins(manager)
    found = entry_points(group=hooks.GROUP) if entries is None else entries
    for entry in sorted(found, key=lambda entry: (entry.name, entry.value)):
        _load_one(plugins, entry)
    return plugins


def _load_one(plugins: Plugins, entry: EntryPoint) -> None:
    distribution = entry.dist.name if entry.dist else "unknown"
    version = entry.dist.version if entry.dist else "unknown"

    def refuse(where: str, text: str) -> None:
        plugins.faults.append(PluginFault(f"{distribution}[{entry.name}]", where, text))

    if plugins.manager.has_plugin(entry.name):
        other = next(info for info in plugins.infos if info.name == entry.name)
        if other.distribution != distribution:
            refuse("register", f"the name {entry.name!r} is already taken by {other.distribution}")
        # The same distribution seen twice is one installation on two paths, not a clash.
        return
    try:
        module = entry.load()
    except (Exception, SystemExit) as error:  # an import runs a stranger's code
        refuse("import", f"{type(error).__name__}: {error}")
        return
    wanted = getattr(module, "HVKERNEL_CONTRACT", None)
    parsed = _CONTRACT_TEXT.fullmatch(wanted) if isinstance(wanted, str) else None
    have = f"{hooks.CONTRACT[0]}.{hooks.CONTRACT[1]}"
    if parsed is None:
        refuse("contract", f'HVKERNEL_CONTRACT is {wanted!r}; it must be a text like "{have}"')
        return
    major, minor = int(parsed[1]), int(parsed[2])
    if major != hooks.CONTRACT[0] or minor > hooks.CONTRACT[1]:
        refuse("contract", f"needs contract {wanted}, this hvkernel has {have}")
        return
    try:
        plugins.manager.register(module, name=entry.name)
        plugins.manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if plugins.manager.has_plugin(entry.name):
            plugins.manager.unregister(name=entry.name)
        refuse("register", str(error).replace("\n", " "))
        return
    callers = plugins.manager.get_hookcallers(module) or []
    names = tuple(sorted(caller.name for caller in callers))
    plugins.infos.append(PluginInfo(entry.name, distribution, version, str(wanted), names, module.__name__))
