"""Parsed Kconfig trees, kept so that one reading serves many evaluations.

Reading the 3,000 lines of a release costs ten times what evaluating a ``.config`` on them does. A :class:`KconfigTrees`
belongs to whoever evaluates many configurations (the plugins of one process, a matrix worker); without one,
:func:`hvkernel.kconfig.evaluate` reads anew. Nothing of it shows in a :class:`~hvkernel.kconfig.Build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hvkernel.kconfig.data import Data, load_data
from hvkernel.kconfig.reader import KconfigReader

__all__ = ["KconfigTree", "KconfigTrees"]

_TOP: Final = "<all of Kconfig>"
_KEPT: Final = 32
"""Trees kept at most; releases times architectures are ten, each set of plugins multiplies them."""


class KconfigTree:
    """One release's Kconfig for one architecture, with the plugins' texts.

    It carries the values of one evaluation at a time.

    :param data: the release's data.
    :param plugins: name to Kconfig text of each plugin.
    :raises ConfigError: for an error in a text.
    """

    __slots__ = ("_owner", "data", "kconf")

    def __init__(self, data: Data, plugins: Mapping[str, str]) -> None:
        top = "".join(f'source "{name}"\n' for name in (data.name, *plugins))
        self.data = data
        plain = () if data.name in plugins else (data.name,)
        self.kconf = KconfigReader({_TOP: top, data.name: data.text, **plugins}, _TOP, plain)
        self._owner: object = None

    def holds(self, owner: object) -> bool:
        """Whether the tree carries the values that ``owner`` gave it."""
        return self._owner is owner

    def clear(self) -> None:
        """Forget all values."""
        self._owner = None
        self.kconf.forget_values()

    def keep(self, owner: object) -> None:
        """The values are now all that ``owner`` gives."""
        self._owner = owner


class KconfigTrees:
    """Trees by release, architecture and plugins, each read when it is first asked for."""

    def __init__(self) -> None:
        self._trees: dict[tuple[str, str, tuple[tuple[str, str], ...]], KconfigTree] = {}

    def tree(self, release: str, arch: str, plugins: Mapping[str, str]) -> KconfigTree:
        """The tree of a release for an architecture.

        :param release: one of :data:`~hvkernel.kconfig.data.RELEASES`.
        :param arch: one of :data:`~hvkernel.kconfig.data.ARCHES`.
        :param plugins: name to Kconfig text of each plugin.
        :raises ConfigError: for an error in a text.
        """
        key = (release, arch, tuple(plugins.items()))
        tree = self._trees.get(key)
        if tree is None:
            tree = KconfigTree(load_data(release, arch), plugins)
            while len(self._trees) >= _KEPT:
                del self._trees[next(iter(self._trees))]
            self._trees[key] = tree
        return tree
