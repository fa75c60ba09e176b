"""Why a symbol has the value it has: the first false clause of its dependencies, its parent, and what to edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import hvkernel.kconfig.reader as reader
from hvkernel.kconfig.configfile import shown

__all__ = ["Explanation", "explain"]

_LEVEL: Final = ("n", "m", "y")
_DEPTH: Final = 12
"""Longest chain of parents followed; real ones in the data have at most six."""


@dataclass(frozen=True)
class Explanation:
    """Why a symbol came out as it did.

    :ivar symbol: name without ``CONFIG_``.
    :ivar wanted: what the file asked for, or None where it does not name the symbol.
    :ivar got: the value it has.
    :ivar first_false_clause: the leftmost factor of its dependencies that keeps it down, in Kconfig's spelling.
    :ivar parent: the same for the symbol in that clause which is to blame.
    :ivar edit: the line that would change it where it stands, such as ``CONFIG_HYPERVISOR_GUEST=y``.
    :ivar reason: one clause of plain words: why, at this symbol.
    """

    symbol: str
    wanted: str | None
    got: str
    first_false_clause: str | None
    parent: Explanation | None
    edit: str | None
    reason: str

    @property
    def root(self) -> Explanation:
        """The far end of the chain of parents: what is to be edited first."""
        return self.parent.root if self.parent else self

    def lines(self) -> list[str]:
        """The chain as text, one line a symbol, this one first."""
        own = f"{self.symbol}={self.got}: {self.reason}"
        return [own, *(self.parent.lines() if self.parent else [])]


def explain(kconf: reader.KconfigReader, wanted: dict[str, str], name: str, where: str) -> Explanation:
    """Explain one symbol.

    :param kconf: the evaluated tree.
    :param wanted: what the file asked for.
    :param name: the symbol.
    :param where: release and architecture, for *no such symbol*.
    """
    return _explain(kconf, wanted, name, where, 2, ())


def _explain(
    kconf: reader.KconfigReader, wanted: dict[str, str], name: str, where: str, level: int, seen: tuple[str, ...]
) -> Explanation:
    asked = wanted.get(name)
    symbol = kconf.syms.get(name)
    if symbol is None or not symbol.nodes:
        if asked is not None and symbol is None and name not in seen:
            return Explanation(name, asked, asked, None, None, None, f"not among the modelled symbols of {where}")
        return Explanation(name, asked, "n", None, None, None, f"no such symbol in {where}")
    got = str(symbol.str_value)
    if symbol.orig_type not in reader.TRISTATE_TYPES:
        return Explanation(name, asked, got, None, None, None, "set" if asked == got else "default")
    if not seen and asked in _LEVEL:
        level = max(_LEVEL.index(asked), 1)
    value = _LEVEL.index(got)
    if asked is None and not seen and value == 0 and symbol.orig_type == reader.TRISTATE:
        # Nobody asked for a level, so what matters is what makes it n, not what keeps it from y.
        level = 1
    if value >= level:
        return Explanation(name, asked, got, None, None, None, _why_on(symbol, asked, got))
    clause = _first_low(symbol, level)
    if clause is None:
        return _not_set(symbol, asked, got, level)
    blamed = _blame(clause, level, positive=True)
    parent = None
    if blamed and blamed[0].name not in (*seen, name) and len(seen) < _DEPTH:
        culprit, positive = blamed
        if positive:
            parent = _explain(kconf, wanted, culprit.name, where, level, (*seen, name))
        else:
            parent = _is_on(culprit, wanted)
    text = reader.expr_text(clause)
    verb = "is n" if reader.expr_value(clause) == 0 else "is m and allows no more"
    return Explanation(name, asked, got, text, parent, parent.edit if parent else None, f"needs {text}, which {verb}")


def _first_low(symbol: Any, level: int) -> Any | None:
    """The leftmost factor below the level: of the dependencies, of a prompt's condition, else of a default."""
    for condition in _conditions(symbol):
        for term in reader.expr_and_terms(condition):
            if reader.expr_value(term) < level and not reader.is_choice(term):
                return term
        if reader.expr_value(condition) >= level:
            break
    if not any(node.prompt for node in symbol.nodes) and reader.expr_value(symbol.rev_dep) == 0:
        for value, condition in symbol.defaults:
            for term in [*reader.expr_and_terms(condition), *reader.expr_and_terms(value)]:
                if reader.expr_value(term) < level:
                    return term
    return None


def _conditions(symbol: Any) -> list[Any]:
    """What must hold for a symbol to be set: its dependencies, its prompt's, and those of the choice that it is in."""
    own = [symbol.direct_dep, *(node.prompt[1] for node in symbol.nodes if node.prompt)]
    choice = getattr(symbol, "choice", None)
    if choice is None or reader.expr_value(choice) > 0:
        return own
    return [*own, choice.direct_dep, *(node.prompt[1] for node in choice.nodes if node.prompt)]


def _not_set(symbol: Any, asked: str | None, got: str, level: int) -> Explanation:
    """The end of a chain: nothing forbids the symbol, but nothing turns it on either."""
    if any(node.prompt for node in symbol.nodes):
        edit = f"CONFIG_{symbol.name}={_LEVEL[2 if symbol.type == reader.BOOL else level]}"
        reason = "not set" if asked is None else f"set to {shown(asked)}"
        if symbol.choice is not None and asked in ("y", "m"):
            reason = f"its choice went to {getattr(symbol.choice.selection, 'name', None) or 'no member'}"
        elif asked == "m" and symbol.orig_type == reader.BOOL:
            reason = "set to m, which a bool does not take; it counts as not set"
        return Explanation(symbol.name, asked, got, None, None, edit, reason)
    terms = reader.expr_or_terms(symbol.rev_dep)
    selectors = [reader.expr_text(term) for term in terms]
    if selectors and selectors != ["n"]:
        some = ", ".join(selectors[:3]) + (f" and {len(selectors) - 3} more" if len(selectors) > 3 else "")
        reason = f"has no prompt and nothing selects it: {some}"
        only = reader.expr_and_terms(terms[0])[0] if len(terms) == 1 else None
        choose = f"CONFIG_{only.name}=y" if only is not None and _can_be_chosen(only) else None
        return Explanation(symbol.name, asked, got, None, None, choose, reason)
    return Explanation(symbol.name, asked, got, None, None, None, "has no prompt; its value is a default")


def _can_be_chosen(symbol: Any) -> bool:
    """Whether a symbol is off only because another member of its choice is on."""
    return getattr(symbol, "choice", None) is not None and symbol.visibility > 0


def _is_on(symbol: Any, wanted: dict[str, str]) -> Explanation:
    asked = wanted.get(symbol.name)
    got = str(symbol.str_value)
    edit = f"# CONFIG_{symbol.name} is not set" if any(node.prompt for node in symbol.nodes) else None
    return Explanation(symbol.name, asked, got, None, None, edit, _why_on(symbol, asked, got))


def _why_on(symbol: Any, asked: str | None, got: str) -> str:
    selected = reader.expr_value(symbol.rev_dep)
    if selected and (asked is None or _LEVEL[selected] == got != asked):
        for term in reader.expr_or_terms(symbol.rev_dep):
            if reader.expr_value(term) == selected:
                return f"selected by {reader.expr_text(reader.expr_and_terms(term)[0])}"
    return "set" if asked == got else "default"


def _blame(clause: Any, level: int, *, positive: bool) -> tuple[Any, bool] | None:
    """The symbol to blame for a false clause, and whether it should be on."""
    candidates = reader.low_leaves(clause, level, positive)
    return candidates[0] if candidates else None
