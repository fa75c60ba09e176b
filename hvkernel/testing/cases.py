"""What ``@pytest.mark.hv_matrix(...)`` asks for: a spec, its cells, and an id for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.config.errors import InputError
from hvkernel.config.matrix import MatrixSpec, change_spec, default_spec, load_spec, spec_of
from hvkernel.matrix.axes import axes_of, plugin_axes, replay_command
from hvkernel.matrix.cover import cells_of
from hvkernel.matrix.model import Cell

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.matrix.axes import Axis

__all__ = ["COVERS", "Case", "Options", "cases_of", "default_case", "matrix_command"]

COVERS: Final = ("smoke", "pairwise", "full")
"""What ``--hv-matrix`` takes. ``smoke``: every value of every axis is in some cell."""

MAX_CELLS: Final = 20_000
"""Most cells of one test. pytest keeps every one of its items from the collection on; ``hvkernel matrix`` does not."""

DEFAULT: Final = "default"
"""The spec that ``hvkernel matrix`` runs when it is given none."""

MOST_NAMED: Final = 8
"""Most parts of an id; of longer ones the first are shown, and the number of the cell."""

_KEYS: Final = ("spec", "cover", "seeds", "vm", "kconfig", "configs", "rules")
"""Arguments of the mark that are no axes."""

_SPELLED: Final = MappingProxyType({"kconfig": "config", "rules": "rule"})
"""Those that a spec calls otherwise: an axis has that name, or there are several."""

_CHANGES: Final = frozenset({"vm", "kconfig", "configs"})
"""Arguments that no command line of ``hvkernel matrix`` can say."""

_ALWAYS_NAMED: Final = ("arch", "page_size", "host")
"""Axes whose values speak for themselves, and stand in an id even where they are the default."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of pytest says of all cells."""

    cover: str = COVERS[0]
    seed: int | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One guest that a test is run with."""

    spec: MatrixSpec
    cell: Cell
    name: str
    """Id of the parameter."""
    home: MatrixSpec | None
    """The spec by which ``hvkernel matrix`` knows the cell, if it does."""


def default_case(options: Options) -> Case:
    """Return the case of a test without a mark: the guest that ``hvkernel boot`` boots."""
    spec = _with_options(spec_of({"axes": {"arch": "x86"}}, "hvkernel", Path()), options)
    cell = Cell(0, tuple((name, values[0]) for name, values in spec.varied.items()), spec.seeds[0])
    return Case(spec, cell, "", default_spec())


def cases_of(
    arguments: tuple[Any, ...],
    keywords: Mapping[str, Any],
    options: Options,
    plugins: Plugins,
    where: str,
    beside: Path,
) -> tuple[Case, ...]:
    """Return what a mark asks for.

    :param arguments: of the mark: nothing, or the spec.
    :param keywords: of the mark.
    :param where: the test, for errors.
    :param beside: directory that paths are relative to.
    :raises InputError: the mark, or the spec that it names, is wrong, or asks for too many cells.
    """
    base = _base(arguments, keywords, where, beside)
    spec = _with_options(_spec(base, keywords, options, where, beside), options)
    home = default_spec() if base is None else base if _has_file(base) else None
    if not _CHANGES.isdisjoint(keywords):
        home = None
    axes = axes_of(spec, plugin_axes(plugins))
    cells = cells_of(spec, plugins)
    if len(cells) > MAX_CELLS:
        limit = f"are too many for one test, which can have {MAX_CELLS}: name fewer values, or cover less"
        raise InputError(where, "cells", len(cells), limit)
    return tuple(Case(spec, cell, _name(spec, axes, cell), home) for cell in cells)


# the spec ------------------------------------------------------------------------------------------------------


def _base(arguments: tuple[Any, ...], keywords: Mapping[str, Any], where: str, beside: Path) -> MatrixSpec | None:
    """Return the spec that a mark begins with; ``None``: it names its axes itself."""
    named = (*arguments, *((keywords["spec"],) if "spec" in keywords else ()))
    if len(named) > 1:
        raise InputError(where, "spec", named[1], f"is {named[0]!r} already")
    if not named:
        return None if keywords.keys() - _KEYS else default_spec()
    if isinstance(named[0], MatrixSpec):
        return named[0]
    if named[0] == DEFAULT:
        return default_spec()
    if isinstance(named[0], str | Path):
        return load_spec(beside / named[0])
    raise InputError(where, "spec", named[0], f"must be a path, {DEFAULT!r} or a MatrixSpec")


def _has_file(spec: MatrixSpec) -> bool:
    """Whether a command line can name it."""
    return spec.source == "default.toml" or Path(spec.source).is_file()


def _spec(
    base: MatrixSpec | None, keywords: Mapping[str, Any], options: Options, where: str, beside: Path
) -> MatrixSpec:
    axes = {name: values for name, values in keywords.items() if name not in _KEYS and name != name.upper()}
    symbols = {name: values for name, values in keywords.items() if name not in _KEYS and name not in axes}
    changes = {_SPELLED.get(key, key): keywords[key] for key in _KEYS if key in keywords and key != "spec"}
    cover = changes.get("cover", options.cover)
    changes["cover"] = "t=1" if cover == "smoke" else cover
    if base is None:
        order = {name: number for number, name in enumerate(default_spec().varied)}
        axes = dict(sorted(axes.items(), key=lambda item: order.get(item[0], len(order))))
        return spec_of({**changes, "axes": axes, "symbols": symbols}, where, beside)
    if "configs" in changes:
        raise InputError(where, "configs", limit="stand in the spec, where there is one")
    changes.setdefault("seeds", base.seeds)
    changes["axes"] = {**base.axes, **axes}
    changes["symbols"] = {**base.symbols, **symbols}
    return change_spec(base, changes, where=where)


def _with_options(spec: MatrixSpec, options: Options) -> MatrixSpec:
    changes: dict[str, Any] = {}
    if options.seed is not None:
        changes["seeds"] = (options.seed,)
    if options.policy is not None:
        changes["axes"] = {**spec.axes, "policy": (options.policy,)}
    if spec.cover == "pairwise" and len({*spec.varied, *changes.get("axes", ())}) < 2:
        changes["cover"] = "full"
    return change_spec(spec, changes, where="command line")


# ids and commands ----------------------------------------------------------------------------------------------


def _name(spec: MatrixSpec, axes: Mapping[str, Axis], cell: Cell) -> str:
    """Return what tells a cell from the others of its spec, in words that ``-k`` takes."""
    parts = []
    varied = spec.varied
    for name, value in cell.values:
        if name in _ALWAYS_NAMED:
            parts.append(value)
        elif len(varied[name]) > 1 and value != axes[name].default:
            parts.append(f"{name}{value}" if value.isdecimal() else f"{name}:{value}")
    if len(parts) > MOST_NAMED:
        rest = len(parts) - MOST_NAMED
        parts[MOST_NAMED:] = [f"and{rest}more-cell{cell.number}"]
    if len(spec.seeds) > 1:
        parts.append(f"seed{cell.seed}")
    return "-".join(parts) or "default"


def matrix_command(case: Case, plugins: Plugins) -> str | None:
    """Return the command of ``hvkernel matrix`` that runs a case's cell; ``None`` where none can say it.

    A cell of a spec in a file can be said, and so can one that has nothing but values of the default spec's axes.
    """
    if case.home is None:
        return None
    known = axes_of(case.home, plugin_axes(plugins))
    if all(name in known and known[name].problem(value) is None for name, value in case.cell.values):
        return replay_command(case.home, case.cell)
    return None
