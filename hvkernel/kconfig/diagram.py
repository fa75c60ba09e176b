"""Decision diagrams: exact truth functions over variables that each have a few values.

What a combination of values must satisfy, however it is written, becomes one reduced ordered diagram. Then whether any
combination is left, how many there are, the next one, and one drawn at random are questions of a walk, and two
functions are equal just when their nodes are.

A node is a number: 0 is false, 1 is true, others stand for a variable and one successor per value. The order of the
variables is that in which they were declared; a variable on which most others depend belongs first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["FALSE", "TRUE", "Diagrams"]

FALSE: Final = 0
TRUE: Final = 1


class Diagrams:
    """Truth functions over one set of variables.

    :param variables: name to values, in order.
    """

    def __init__(self, variables: Mapping[str, Sequence[str]]) -> None:
        self.variables = {name: tuple(values) for name, values in variables.items()}
        self._names = tuple(self.variables)
        self._sizes = tuple(len(values) for values in self.variables.values())
        self._level = {name: number for number, name in enumerate(self._names)}
        end = len(self._names)
        self._levels = [end, end]
        self._children: list[tuple[int, ...]] = [(), ()]
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._ands: dict[tuple[int, int], int] = {}
        self._nots: dict[int, int] = {FALSE: TRUE, TRUE: FALSE}
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def _node(self, level: int, children: tuple[int, ...]) -> int:
        if children.count(children[0]) == len(children):
            return children[0]
        key = (level, children)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self._levels)
            self._levels.append(level)
            self._children.append(children)
        return found

    def one_of(self, name: str, values: Sequence[str]) -> int:
        """The variable has one of ``values``; values that it does not have count for nothing."""
        wanted = frozenset(values)
        return self._node(self._level[name], tuple(int(value in wanted) for value in self.variables[name]))

    def both(self, a: int, b: int) -> int:
        """``a`` and ``b``."""
        if a == b or b == TRUE:
            return a
        if a == TRUE:
            return b
        if FALSE in (a, b):
            return FALSE
        key = (a, b) if a < b else (b, a)
        found = self._ands.get(key)
        if found is None:
            level = min(self._levels[a], self._levels[b])
            pairs = zip(self._below(a, level), self._below(b, level), strict=True)
            found = self._ands[key] = self._node(level, tuple(self.both(x, y) for x, y in pairs))
        return found

    def opposite(self, a: int) -> int:
        """Not ``a``."""
        found = self._nots.get(a)
        if found is None:
            found = self._node(self._levels[a], tuple(self.opposite(child) for child in self._children[a]))
            self._nots[a] = found
            self._nots[found] = a
        return found

    def either(self, a: int, b: int) -> int:
        """``a`` or ``b``."""
        return self.opposite(self.both(self.opposite(a), self.opposite(b)))

    def implies(self, a: int, b: int) -> int:
        """``b`` wherever ``a``."""
        return self.opposite(self.both(a, self.opposite(b)))

    def choose(self, condition: int, a: int, b: int) -> int:
        """``a`` where ``condition`` holds, ``b`` elsewhere."""
        return self.either(self.both(condition, a), self.both(self.opposite(condition), b))

    def all(self, nodes: Sequence[int]) -> int:
        """The conjunction."""
        found = TRUE
        for node in nodes:
            found = self.both(found, node)
        return found

    def any(self, nodes: Sequence[int]) -> int:
        """The disjunction."""
        found = FALSE
        for node in nodes:
            found = self.either(found, node)
        return found

    def _below(self, node: int, level: int) -> tuple[int, ...]:
        if self._levels[node] == level:
            return self._children[node]
        return (node,) * self._sizes[level]

    def holds(self, node: int, values: Mapping[str, str]) -> bool:
        """Whether the function is true of a whole combination; variables that do not matter may be left out."""
        while node > TRUE:
            name = self._names[self._levels[node]]
            node = self._children[node][self.variables[name].index(values[name])]
        return node == TRUE

    def under(self, node: int, values: Mapping[str, str]) -> int:
        """The function with some variables fixed."""
        fixed = {self._level[name]: self.variables[name].index(value) for name, value in values.items()}
        done: dict[int, int] = {}

        def walk(at: int) -> int:
            if at <= TRUE:
                return at
            found = done.get(at)
            if found is None:
                level, children = self._levels[at], self._children[at]
                if level in fixed:
                    found = walk(children[fixed[level]])
                else:
                    found = self._node(level, tuple(map(walk, children)))
                done[at] = found
            return found

        return walk(node)

    def places(self, values: Mapping[str, str]) -> dict[int, int]:
        """Values as :meth:`possible` takes them: place of the variable to place of the value."""
        return {self._level[name]: self.variables[name].index(value) for name, value in values.items()}

    def possible(self, node: int, fixed: Mapping[int, int]) -> bool:
        """Whether the function can still be true with some variables fixed (:meth:`places`); no node is made."""
        last = max(fixed, default=-1)
        levels, children = self._levels, self._children
        seen: dict[int, None] = {}
        stack = [node]
        while stack:
            at = stack.pop()
            if at == FALSE or at in seen:
                continue
            level = levels[at]
            if level > last:
                return True
            seen[at] = None
            if level in fixed:
                stack.append(children[at][fixed[level]])
            else:
                stack.extend(children[at])
        return False

    def support(self, node: int) -> tuple[str, ...]:
        """The variables that matter, in their order."""
        seen: dict[int, None] = {}
        levels: dict[int, None] = {}
        stack = [node]
        while stack:
            at = stack.pop()
            if at > TRUE and at not in seen:
                seen[at] = None
                levels[self._levels[at]] = None
                stack.extend(self._children[at])
        return tuple(self._names[level] for level in sorted(levels))

    def branches(self, node: int) -> tuple[str, tuple[tuple[tuple[str, ...], int], ...]]:
        """The first variable that matters, and its values grouped by the function that is left under them."""
        name = self._names[self._levels[node]]
        groups: dict[int, list[str]] = {}
        for value, child in zip(self.variables[name], self._children[node], strict=True):
            groups.setdefault(child, []).append(value)
        return name, tuple((tuple(values), child) for child, values in groups.items())

    def count(self, node: int) -> int:
        """How many whole combinations the function is true of."""
        return self._count(node) * self._skipped(0, self._levels[node])

    def _count(self, node: int) -> int:
        """The combinations of the variables from the node's own on."""
        if node <= TRUE:
            return node
        found = self._counts.get(node)
        if found is None:
            level = self._levels[node] + 1
            below = self._children[node]
            found = sum(self._count(child) * self._skipped(level, self._levels[child]) for child in below)
            self._counts[node] = found
        return found

    def _skipped(self, first: int, last: int) -> int:
        size = 1
        for level in range(first, last):
            size *= self._sizes[level]
        return size

    def combinations(self, node: int) -> Iterator[tuple[str, ...]]:
        """Every combination that the function is true of, in the order of the values, the last variable fastest."""
        end = len(self._names)

        def walk(at: int, level: int, head: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
            if at == FALSE:
                return
            if level == end:
                yield head
                return
            for value, child in zip(self.variables[self._names[level]], self._below(at, level), strict=True):
                yield from walk(child, level + 1, (*head, value))

        return walk(node, 0, ())

    def combination(self, node: int, number: int) -> tuple[str, ...]:
        """The combination at a place, from 0, in the order of :meth:`combinations`.

        :raises IndexError: there are not so many.
        """
        if not 0 <= number < self.count(node):
            raise IndexError(number)
        found = []
        for level, name in enumerate(self._names):
            for value, child in zip(self.variables[name], self._below(node, level), strict=True):
                size = self._count(child) * self._skipped(level + 1, self._levels[child])
                if number < size:
                    found.append(value)
                    node = child
                    break
                number -= size
        return tuple(found)
