"""module.h, kmod.h: modules, their aliases and dependencies, and what file system they come from.

Loading follows modprobe: softdeps and the owners of needed symbols first, then the module; the init runs in the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from hvkernel.api.guest.errno import EAGAIN, EBUSY, ENOENT
from hvkernel.api.guest.kernel import KernelObject
from hvkernel.linux.symbols import Symbols


class Module:
    """One object that the configuration builds as a module."""

    __slots__ = ("error", "name", "obj", "refs", "state", "waiters")

    def __init__(self, obj: KernelObject) -> None:
        self.obj = obj
        self.name = obj.name
        self.state = "unloaded"
        """``unloaded``, ``coming``, ``live``, ``going``."""
        self.error = 0
        """Negative errno of the last init that failed."""
        self.refs: list[str] = []
        """Modules that use it."""
        self.waiters: list[Any] = []


class Modules:
    """``kernel.module``."""

    def __init__(
        self,
        symbols: Symbols,
        run_init: Callable[[KernelObject], int],
        run_exit: Callable[[KernelObject], None],
        wait_while: Callable[[Callable[[], bool]], None],
    ) -> None:
        """:param wait_while: block the calling task while the condition holds (another task loads the module)."""
        self._symbols = symbols
        self._run_init = run_init
        self._run_exit = run_exit
        self._wait_while = wait_while
        self.modules: dict[str, Module] = {}
        self.builtin: list[str] = []
        """Names of built-in objects, in the order of registration."""
        self._owner_of: dict[type[Any], list[str]] = {}
        self._available: frozenset[str] | None = frozenset()
        self.loaded_order: list[str] = []
        """Modules in the order in which their init succeeded."""
        self.failed: list[tuple[str, int]] = []
        self.missing: list[tuple[str, str]] = []
        """(wanted alias or name, why) of requests that found no module file."""
        self.loading: list[str] = []

    def add(self, obj: KernelObject, *, module: bool) -> None:
        """Enter a built object. :raises ValueError: when its name is taken."""
        if obj.name in self.modules or obj.name in self.builtin:
            raise ValueError(f"kernel object {obj.name} ({obj.path}) is registered twice")
        if module:
            self.modules[obj.name] = Module(obj)
        else:
            self.builtin.append(obj.name)
        for export in obj.exports:
            self._owner_of.setdefault(export.proto, []).append(obj.name)

    def set_available(self, names: Iterable[str] | None) -> None:
        """Which module files the current root file system has; None: all that were built."""
        self._available = None if names is None else frozenset(names)

    def available(self, name: str) -> bool:
        """Whether modprobe would find the file now."""
        return name in self.modules and (self._available is None or name in self._available)

    def module_loaded(self, name: str) -> bool:
        """True when its init has succeeded, or it is built in."""
        if name in self.builtin:
            return True
        mod = self.modules.get(name)
        return mod is not None and mod.state == "live"

    def dependencies(self, name: str) -> list[str]:
        """Modules that ``name`` needs, in loading order: softdeps, then owners of its symbols."""
        obj = self.modules[name].obj
        needed = [dep for dep in obj.softdeps if dep in self.modules]
        for need in obj.imports:
            owners = self._owner_of.get(need.proto, [])
            if any(owner in self.builtin for owner in owners):
                continue
            needed += [owner for owner in owners if owner in self.modules and owner not in needed and owner != name]
        return needed

    def closure(self, names: Iterable[str]) -> list[str]:
        """``names`` with all that they need, each after what it needs."""
        done: list[str] = []

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in done or name in path or name not in self.modules:
                return
            for dep in self.dependencies(name):
                visit(dep, (*path, name))
            done.append(name)

        for name in names:
            visit(name, ())
        return done

    def request_module(self, name: str) -> int:
        """modprobe ``name``: 0 when it is live or built in, -ENOENT when there is no file, else its init's errno."""
        if name in self.builtin:
            return 0
        if not self.available(name):
            self.missing.append((name, "not in this root" if name in self.modules else "not built"))
            return -ENOENT
        for dep in self.closure([name]):
            ret = self._load_one(dep)
            if ret:
                return ret
        return 0

    def _load_one(self, name: str) -> int:
        mod = self.modules[name]
        if not self.available(name):
            self.missing.append((name, "not in this root"))
            return -ENOENT
        if mod.state == "coming":
            self._wait_while(lambda: mod.state == "coming")
        if mod.state == "live":
            return 0
        if mod.state == "going":
            return -EAGAIN
        mod.state = "coming"
        self.loading.append(name)
        try:
            ret = self._run_init(mod.obj)
        except BaseException:
            mod.state = "unloaded"
            raise
        finally:
            self.loading.remove(name)
        if ret < 0:
            mod.state = "unloaded"
            mod.error = ret
            self.failed.append((name, ret))
            self._symbols.unexport_owner(name)
            return ret
        mod.state = "live"
        mod.error = 0
        self.loaded_order.append(name)
        for dep in self.dependencies(name):
            self.modules[dep].refs.append(name)
        return 0

    def by_alias(self, modalias: str) -> list[str]:
        """Built modules one of whose patterns matches, in the order of modules.alias (registration order)."""
        return [
            name
            for name, mod in self.modules.items()
            if any(fnmatchcase(modalias, pattern) for pattern in mod.obj.aliases)
        ]

    def load_alias(self, modalias: str) -> list[str]:
        """What udev's kmod builtin does with a MODALIAS: load every module that matches. Returns the live ones."""
        live = []
        for name in self.by_alias(modalias):
            if self.modules[name].state == "live" or (self.available(name) and self.request_module(name) == 0):
                live.append(name)
        return live

    def delete_module(self, name: str) -> int:
        """rmmod: -ENOENT when it is not loaded, -EBUSY while another module uses it or it has no exit."""
        mod = self.modules.get(name)
        if mod is None or mod.state != "live":
            return -ENOENT
        if mod.refs or mod.obj.exit is None:
            return -EBUSY
        mod.state = "going"
        self._run_exit(mod.obj)
        self._symbols.unexport_owner(name)
        mod.state = "unloaded"
        self.loaded_order.remove(name)
        for dep in self.dependencies(name):
            if name in self.modules[dep].refs:
                self.modules[dep].refs.remove(name)
        return 0
