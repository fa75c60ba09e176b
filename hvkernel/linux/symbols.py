"""The modelled symbol table and the link check.

An object declares what it exports and what it imports, each as a Protocol plus the C names behind it. Built-in code
that needs a module's symbol does not link; a module that needs one depends on its owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hvkernel.api.guest.kernel import Build, KernelObject

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LinkError:
    """An undefined reference that the linker, or modpost for a module, would stop at."""

    obj: str
    """Path of the object that refers."""
    symbol: str
    owner: str
    """Module name that has it, or empty when nothing built has it."""
    owner_state: str
    """``m``, ``n`` or empty."""
    config: str
    """Kconfig symbol of the owner."""

    def __str__(self) -> str:
        why = f" (exported by {self.owner}, CONFIG_{self.config}={self.owner_state})" if self.owner else ""
        return f"{self.obj}: undefined reference to `{self.symbol}'{why}"


def state_of(obj: KernelObject, config: Build) -> str:
    """``y``, ``m`` or ``n`` of an object; one without a symbol is always built in."""
    if not obj.config:
        return "y"
    value = config.value(obj.config)
    return value if value in ("y", "m") else "n"


def check_link(objects: Sequence[KernelObject], config: Build) -> list[LinkError]:
    """Undefined references of the whole build, in the order of ``objects``.

    Built-in objects may use built-in ones, modules may use both. A Protocol that no object exports is the core
    kernel's own and always there.
    """
    owners: dict[type[Any], list[KernelObject]] = {}
    for obj in objects:
        for export in obj.exports:
            owners.setdefault(export.proto, []).append(obj)
    errors: list[LinkError] = []
    for obj in objects:
        state = state_of(obj, config)
        if state == "n":
            continue
        for need in obj.imports:
            candidates = owners.get(need.proto)
            if not candidates:
                continue
            states = [state_of(owner, config) for owner in candidates]
            if "y" in states or (state == "m" and "m" in states):
                continue
            at = states.index("m") if "m" in states else 0
            owner = candidates[at]
            errors += [LinkError(obj.path, name, owner.name, states[at], owner.config) for name in need.names]
    return errors


class SymbolError(LookupError):
    """A symbol is not there, or is there twice."""


class Symbols:
    """``kernel.symbols``: which implementation stands behind a Protocol, and whose it is."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: dict[type[Any], tuple[Any, str]] = {}

    def export(self, proto: type[Any], impl: Any, owner: str) -> None:
        """Enter ``impl``; a second export of one Protocol is an error, as duplicate symbols are."""
        if proto in self._table:
            raise SymbolError(f"{owner}: duplicate symbols {proto.__name__} (owned by {self._table[proto][1]})")
        self._table[proto] = (impl, owner)

    def unexport_owner(self, owner: str) -> None:
        """Forget what ``owner`` exported (its module was unloaded)."""
        for proto in [p for p, (_, who) in self._table.items() if who == owner]:
            del self._table[proto]

    def resolve(self, proto: type[T]) -> T:
        """The implementation of ``proto``."""
        try:
            impl: T = self._table[proto][0]
        except KeyError:
            have = ", ".join(sorted(p.__name__ for p in self._table)) or "none"
            raise SymbolError(f"Unknown symbol {proto.__name__}; exported now: {have}") from None
        return impl

    def owner(self, proto: type[Any]) -> str | None:
        """Who exports ``proto``, or None."""
        entry = self._table.get(proto)
        return entry[1] if entry else None

    def table(self) -> Mapping[str, str]:
        """Protocol name to owner, sorted; for reports."""
        return {p.__name__: owner for p, (_, owner) in sorted(self._table.items(), key=lambda e: e[0].__name__)}


def exporters_first(objects: Sequence[KernelObject]) -> list[KernelObject]:
    """Order objects so that each comes after those whose exports it imports, otherwise as they stand.

    A linker needs no order; ``link`` callbacks, which hand one object's state to another, do. Objects that import
    each other keep their order.
    """
    exporter = {export.proto: obj for obj in objects for export in obj.exports}
    done: list[KernelObject] = []
    visiting: list[KernelObject] = []

    def visit(obj: KernelObject) -> None:
        if obj in done or obj in visiting:
            return
        visiting.append(obj)
        for needed in obj.imports:
            if needed.proto in exporter:
                visit(exporter[needed.proto])
        visiting.pop()
        done.append(obj)

    for obj in objects:
        visit(obj)
    return done
