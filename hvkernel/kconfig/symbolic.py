"""What Kconfig symbols come out as when some of them are left open: values as functions of what is varied.

:func:`hvkernel.kconfig.evaluate` answers for one ``.config``. Here the values that a user gives to some symbols are
functions of variables (the axes of a matrix), all others stay as the ``.config`` has them, and the tree's own
expressions (prompts, dependencies, defaults, selects, choices) make the value of each symbol a function of the same
variables: two truth functions, *at least m* and *y*.

The rules are those of Kconfiglib's ``Symbol.tri_value``, ``visibility`` and ``Choice.selection``, which are the
kernel's (scripts/kconfig/symbol.c: sym_calc_value, sym_calc_visibility, sym_calc_choice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import kconfiglib

from hvkernel.kconfig.build import WITHDRAWN_COUNTS, Build
from hvkernel.kconfig.diagram import FALSE, TRUE, Diagrams
from hvkernel.kconfig.errors import ConfigError
from hvkernel.kconfig.reader import BOOL, TRI, TRISTATE, TRISTATE_TYPES, expr_value

__all__ = ["Given", "Symbolic"]

Given = Mapping[str, Sequence[tuple[str, int]]]
"""Symbol to what the user gives it: value, and where (a truth function); elsewhere the file's value stands. A later
symbol of the mapping was written later, which counts among the members of a choice."""

_Value = tuple[int, int]
_NEVER: Final = (FALSE, FALSE)
_RELATIONS: Final = (
    kconfiglib.EQUAL,
    kconfiglib.UNEQUAL,
    kconfiglib.LESS,
    kconfiglib.LESS_EQUAL,
    kconfiglib.GREATER,
    kconfiglib.GREATER_EQUAL,
)


class Symbolic:
    """The values of one build's symbols with some given otherwise.

    It reads the tree that the build was evaluated on and is of no use once that serves another.

    :param build: the configuration in which what is not given stands.
    :param given: symbols that are varied. Those that the Kconfig does not have count for nothing.
    """

    def __init__(self, build: Build, diagrams: Diagrams, given: Given) -> None:
        self._d = diagrams
        self._where = f"{build.source} on Linux {build.data_release} ({build.arch})"
        self._kconf = build.tree()
        self._file = build.file
        self._older = build.data_release in WITHDRAWN_COUNTS
        self._given = given
        self._affected = self._reach()
        self._values: dict[Any, _Value] = {}
        self._visibilities: dict[Any, _Value] = {}
        self._selections: dict[Any, dict[str, int]] = {}

    def has(self, name: str) -> bool:
        """Whether the Kconfig has a symbol."""
        symbol = self._kconf.syms.get(name)
        return symbol is not None and bool(symbol.nodes)

    def equals(self, name: str, value: str) -> int:
        """Where the symbol comes out as ``y``, ``m`` or ``n``; one that the Kconfig does not have is always ``n``.

        :raises ConfigError: that depends on something that is not a truth value.
        """
        at_least_m, is_y = self._value(self._kconf.syms[name]) if self.has(name) else _NEVER
        if value == "y":
            return is_y
        d = self._d
        return d.opposite(at_least_m) if value == "n" else d.both(at_least_m, d.opposite(is_y))

    def enabled(self, name: str) -> int:
        """Where the symbol is ``y`` or ``m``."""
        return self._d.opposite(self.equals(name, "n"))

    def _reach(self) -> dict[Any, None]:
        """What may come out differently: the symbols given, and all whose expressions lead to them."""
        found: dict[Any, None] = {}
        stack = [self._kconf.syms[name] for name in self._given if self.has(name)]
        while stack:
            item = stack.pop()
            if item in found:
                continue
            found[item] = None
            stack.extend(item._dependents)
            if isinstance(item, kconfiglib.Choice):
                stack.extend(item.syms)
            elif item.choice is not None:
                stack.append(item.choice)
            if item is self._kconf.modules:
                stack.extend(s for s in self._kconf.unique_defined_syms if s.orig_type is TRISTATE)
        return found

    def _refuse(self, item: Any, why: str) -> ConfigError:
        name = item.name or "a choice"
        return ConfigError(self._where, None, f"{name} {why}: {', '.join(self._given)} cannot be varied together")

    def _value(self, symbol: Any) -> _Value:
        if symbol not in self._affected:
            return _constant(symbol.tri_value)
        found = self._values.get(symbol)
        if found is None:
            found = self._values[symbol] = self._evaluated(symbol)
        return found

    def _evaluated(self, symbol: Any) -> _Value:
        d = self._d
        if isinstance(symbol, kconfiglib.Choice):
            mode = self._mode(symbol)
            return mode, mode
        if symbol.orig_type not in TRISTATE_TYPES:
            return _NEVER
        if symbol.choice is not None:
            chosen = self._selection(symbol.choice).get(symbol.name, FALSE)
            value = d.both(chosen, self._visibility(symbol)[1])
            return value, value
        visible = self._visibility(symbol)
        has, user = self._user(symbol)
        by_user = d.both(visible[0], has)
        default = self._default(symbol)
        selected = self._expression(symbol.rev_dep)
        one, two = (
            d.either(d.choose(by_user, d.both(user[level], visible[level]), default[level]), selected[level])
            for level in (0, 1)
        )
        return one, d.either(two, d.both(one, d.opposite(self._tristate(symbol))))

    def _user(self, symbol: Any) -> tuple[int, _Value]:
        """Where the user gives a value, and which."""
        d = self._d
        kept, one, two = TRUE, FALSE, FALSE
        has = FALSE
        for value, where in self._given.get(symbol.name, ()):
            kept = d.both(kept, d.opposite(where))
            if value == "m" and symbol.orig_type is BOOL:
                continue
            has = d.either(has, where)
            one = d.either(one, where) if value in ("m", "y") else one
            two = d.either(two, where) if value == "y" else two
        if symbol.user_value is not None:
            has = d.either(has, kept)
            one = d.either(one, kept) if symbol.user_value >= 1 else one
            two = d.either(two, kept) if symbol.user_value >= 2 else two
        return has, (one, two)

    def _default(self, symbol: Any) -> _Value:
        d = self._d
        left, one, two = TRUE, FALSE, FALSE
        for default, condition in symbol.defaults:
            holds = self._expression(condition)
            value = self._expression(default)
            one = d.either(one, d.all([left, holds[0], value[0]]))
            two = d.either(two, d.all([left, holds[1], value[1]]))
            left = d.both(left, d.opposite(holds[0]))
        return one, two

    def _tristate(self, symbol: Any) -> int:
        """Where the symbol may be m: a tristate, and MODULES=y."""
        return self._value(self._kconf.modules)[0] if symbol.orig_type is TRISTATE else FALSE

    def _visibility(self, item: Any) -> _Value:
        if item not in self._affected:
            return _constant(item.visibility)
        found = self._visibilities.get(item)
        if found is None:
            d = self._d
            if isinstance(item, kconfiglib.Symbol) and item.choice and item.choice.orig_type is TRISTATE:
                raise self._refuse(item, "is of a tristate choice")
            prompts = [self._expression(node.prompt[1]) for node in item.nodes if node.prompt]
            one = d.any([prompt[0] for prompt in prompts])
            two = d.any([prompt[1] for prompt in prompts])
            found = self._visibilities[item] = (one, d.either(two, d.both(one, d.opposite(self._tristate(item)))))
        return found

    def _mode(self, choice: Any) -> int:
        """Where a choice is made at all."""
        if choice.orig_type is TRISTATE or choice.is_optional:
            raise self._refuse(choice, "is a tristate or optional choice")
        return self._visibility(choice)[0]

    def _selection(self, choice: Any) -> dict[str, int]:
        """Where each member is the one selected."""
        found = self._selections.get(choice)
        if found is not None:
            return found
        d = self._d
        asked = self._asked(choice)
        visible = {symbol.name: self._visibility(symbol)[0] for symbol in choice.syms}
        honoured = {name: d.both(where, visible[name]) for name, where in asked.items()}
        left = d.both(self._mode(choice), d.opposite(d.any(list(honoured.values()))))
        found = {name: d.both(self._mode(choice), where) for name, where in honoured.items()}
        rest = [(symbol, self._expression(condition)[0]) for symbol, condition in choice.defaults]
        for symbol, condition in (*rest, *((symbol, TRUE) for symbol in choice.syms)):
            taken = d.all([left, condition, visible[symbol.name]])
            found[symbol.name] = d.either(found.get(symbol.name, FALSE), taken)
            left = d.both(left, d.opposite(taken))
        if not self._older:
            found = self._without_refused(choice, found)
        self._selections[choice] = found
        return found

    def _without_refused(self, choice: Any, selected: dict[str, int]) -> dict[str, int]:
        """Give another member the place of a default of which the file says n, as readers do from 6.11 on."""
        d = self._d
        refused = {name: d.both(where, self._says_n(name)) for name, where in selected.items()}
        found = {name: d.both(where, d.opposite(refused[name])) for name, where in selected.items()}
        left = d.any(list(refused.values()))
        members = {symbol.name: self._visibility(symbol)[0] for symbol in choice.syms}
        own = {name: d.opposite(d.any([where for _, where in self._given.get(name, ())])) for name in members}
        written = sorted((name for name in members if name in self._file.lines), key=self._file.lines.__getitem__)
        for name, where in (
            *((name, own[name]) for name in members if name not in self._file.values),
            *((name, own[name]) for name in written),
            *((name, d.opposite(own[name])) for name in self._given if name in members),
        ):
            taken = d.all([left, where, members[name]])
            found[name] = d.either(found.get(name, FALSE), taken)
            left = d.both(left, d.opposite(taken))
        return found

    def _says_n(self, name: str) -> int:
        """Where the file names a symbol, with n."""
        d = self._d
        given = self._given.get(name, ())
        said = d.any([where for value, where in given if value == "n"])
        if self._file.values.get(name) != "n":
            return said
        return d.either(said, d.opposite(d.any([where for _, where in given])))

    def _asked(self, choice: Any) -> dict[str, int]:
        """Where the user asks for each member: the y written last, else the file's unless that line was replaced."""
        d = self._d
        names = [symbol.name for symbol in choice.syms]
        asked: dict[str, int] = {}
        free = TRUE
        for name in reversed([name for name in self._given if name in names]):
            where = d.any([where for value, where in self._given[name] if value == "y"])
            asked[name] = d.both(free, where)
            free = d.both(free, d.opposite(where))
        user = self._file_asks(choice)
        if user is not None:
            replaced = d.any([where for _, where in self._given.get(user, ())])
            asked[user] = d.either(asked.get(user, FALSE), d.both(free, d.opposite(replaced)))
        return asked

    def _file_asks(self, choice: Any) -> str | None:
        """The member that the file asks for last; on older releases a y counts that a later line withdrew."""
        lines = []
        for symbol in choice.syms:
            if self._file.values.get(symbol.name, "n") != "n":
                lines.append((self._file.lines[symbol.name], symbol.name))
            elif self._older and symbol.name in self._file.withdrawn:
                lines.append((self._file.withdrawn[symbol.name], symbol.name))
        return max(lines)[1] if lines else None

    def _expression(self, expression: Any) -> _Value:
        if not isinstance(expression, tuple):
            return self._value(expression)
        d = self._d
        operator = expression[0]
        if operator is kconfiglib.NOT:
            one, two = self._expression(expression[1])
            return d.opposite(two), d.opposite(one)
        if operator in _RELATIONS:
            return self._relation(expression)
        a, b = self._expression(expression[1]), self._expression(expression[2])
        join = d.both if operator is kconfiglib.AND else d.either
        return join(a[0], b[0]), join(a[1], b[1])

    def _relation(self, expression: Any) -> _Value:
        operator, *sides = expression
        if all(side not in self._affected for side in sides):
            return _constant(expr_value(expression))
        if operator not in (kconfiglib.EQUAL, kconfiglib.UNEQUAL):
            raise self._refuse(next(side for side in sides if side in self._affected), "is compared by size")
        d = self._d
        a, b = (self._texts(side) for side in sides)
        same = d.any([d.both(where, b[text]) for text, where in a.items() if text in b])
        holds = same if operator is kconfiglib.EQUAL else d.opposite(same)
        return holds, holds

    def _texts(self, side: Any) -> dict[str, int]:
        """Where one side of a comparison has each text."""
        if side not in self._affected:
            return {side.str_value: TRUE}
        if side.orig_type not in TRISTATE_TYPES:
            raise self._refuse(side, "is a number or a text")
        one, two = self._value(side)
        d = self._d
        return {"n": d.opposite(one), "m": d.both(one, d.opposite(two)), "y": two}


def _constant(value: int) -> _Value:
    return int(value >= TRI.index("m")), int(value >= TRI.index("y"))
