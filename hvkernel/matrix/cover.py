"""The cells of a spec: all of them, an array that covers every legal pair (or t-tuple) of values, or some at random.

Covering arrays are made by covertable. Its own interpreter of declared constraints looks at one condition at a time
and backtracks; over axes that hang together as Kconfig symbols do, that takes hours (``docs/matrix.rst`` has the
figures). So two of its parts are replaced: the question whether a row can still be completed is answered exactly, by
the spec's decision diagram, and the criterion by which a row grows is the one below, which asks it once per value
rather than once per pair.

An array depends on nothing but the axes and the constraints, so it is kept: that of the default spec in the package,
others in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import combinations
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, overload

from covertable.main import Controller

from hvkernel.boot import plugins as plugin_loading
from hvkernel.config.errors import InputError
from hvkernel.kconfig.diagram import FALSE
from hvkernel.matrix.axes import axes_of, plugin_axes
from hvkernel.matrix.legal import Legal, legal
from hvkernel.matrix.model import Cell

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.config.matrix import MatrixSpec

__all__ = ["MAX_CELLS", "Array", "Cells", "array_key", "cells_of", "covering_array", "kept_array", "user_cache"]

MAX_CELLS: Final = 100_000_000
"""Most cells of one run: what a store of one row each still holds (some 60 GB)."""

_SCHEMA: Final = 1
"""Of the files that arrays are kept in; also counts changes of the algorithm, so that an older array is not taken."""

Rows = tuple[tuple[str, ...], ...]


class Cells(Sequence[Cell]):
    """The cells of a run, made when they are asked for: all combinations under the first seed, then the next.

    :param axes: in the order of a cell's values.
    :param rows: the combinations, each in that order.
    """

    def __init__(self, axes: Sequence[str], rows: Sequence[tuple[str, ...]], seeds: Sequence[int]) -> None:
        self.axes = tuple(axes)
        self.rows = rows
        self.seeds = tuple(seeds)

    def __len__(self) -> int:
        return len(self.rows) * len(self.seeds)

    @overload
    def __getitem__(self, at: int) -> Cell: ...
    @overload
    def __getitem__(self, at: slice) -> list[Cell]: ...
    def __getitem__(self, at: int | slice) -> Cell | list[Cell]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(at)
        seed, row = divmod(number, len(self.rows))
        return Cell(number, tuple(zip(self.axes, self.rows[row], strict=True)), self.seeds[seed])

    def __iter__(self) -> Iterator[Cell]:
        number = 0
        for seed in self.seeds:
            for row in self.rows:
                yield Cell(number, tuple(zip(self.axes, row, strict=True)), seed)
                number += 1


class _Product(Sequence[tuple[str, ...]]):
    """Every legal combination, in the order of a cell's values; nothing is stored."""

    def __init__(self, found: Legal, order: Sequence[str]) -> None:
        self._found = found
        self._count = found.count
        names = tuple(found.diagrams.variables)
        self._order = tuple(names.index(name) for name in order)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[str, ...]]: ...
    def __getitem__(self, at: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(self._count))]
        row = self._found.diagrams.combination(self._found.node, at + self._count if at < 0 else at)
        return tuple(row[place] for place in self._order)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for row in self._found.diagrams.combinations(self._found.node):
            yield tuple(row[place] for place in self._order)


def user_cache() -> Path:
    """Return where arrays are kept (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return root / "hvkernel" / "arrays"


def cells_of(
    spec: MatrixSpec, plugins: Plugins | None = None, *, cache: Path | None = None, found: Legal | None = None
) -> Cells:
    """Return the cells of a spec.

    :param plugins: loaded plugins; ``None`` loads all that are installed.
    :param cache: directory that arrays are kept in; ``None`` for the user's.
    :param found: the spec's legal cells where they are known already.
    :raises InputError: an axis, a value or a constraint of the spec is wrong, or there are too many cells.
    """
    if found is None:
        plugins = (plugin_loading.load() if plugins is None else plugins).for_one_guest()
        found = legal(spec, axes_of(spec, plugin_axes(plugins)), plugins)
    order = tuple(spec.varied)
    rows: Sequence[tuple[str, ...]]
    if isinstance(spec.cover, int):
        rows = _drawn(spec, found, order)
    elif spec.cover == "full":
        if found.count > MAX_CELLS:
            limit = f"is {found.count} cells; a run has at most {MAX_CELLS}"
            raise InputError(spec.source, "cover", spec.cover, limit)
        rows = _Product(found, order)
    else:
        strength = 2 if spec.cover == "pairwise" else int(spec.cover[2:])
        if "cover" not in spec.model_fields_set:
            strength = min(strength, len(order))
        if strength > len(order):
            limit = f"covers {strength} axes at a time; the spec has {len(order)}"
            raise InputError(spec.source, "cover", spec.cover, limit)
        rows = kept_array(found, order, strength, user_cache() if cache is None else cache)
    seeds: Sequence[int] = spec.seeds if spec.least is None else range(-(-spec.least // len(rows)))
    if len(rows) * len(seeds) > MAX_CELLS:
        limit = f"{len(rows)} combinations under {len(seeds)} seeds are more than the {MAX_CELLS} cells of a run"
        raise InputError(spec.source, "seeds" if spec.least is None else "least", limit=limit)
    return Cells(order, rows, seeds)


def _drawn(spec: MatrixSpec, found: Legal, order: Sequence[str]) -> Rows:
    """Return as many different combinations as ``cover`` says, each as likely as any other."""
    assert isinstance(spec.cover, int)
    everything = _Product(found, order)
    count, wanted = found.count, spec.cover
    if wanted >= count:
        return tuple(everything)
    if wanted > MAX_CELLS:
        raise InputError(spec.source, "cover", wanted, f"a run has at most {MAX_CELLS} cells")
    random = Random(f"{spec.draw}/cells")
    numbers: dict[int, None] = {}
    while len(numbers) < wanted:
        numbers[random.randrange(count)] = None
    return tuple(everything[number] for number in numbers)


# covering arrays -----------------------------------------------------------------------------------------------


def _grow(array: Array) -> Iterator[tuple[int, ...]]:
    """Complete a row: the oldest tuple that is not covered, then axis by axis the value that covers most.

    A criterion of covertable. What it yields can be taken: it asks first.
    """
    yield next(iter(array.incomplete))
    left = [axis for axis in array.serials if axis not in array.row]
    left.sort(key=lambda axis: -max(array.wanted[serial] for serial in array.serials[axis]))
    for axis in left:
        row = tuple(array.row.values())
        gains = {serial: array.gain(row, serial) for serial in array.serials[axis]}
        # What gains nothing more is ordinary: the value that the spec names first.
        ranked = sorted(gains, key=lambda serial: (-gains[serial], -array.wanted[serial] * bool(gains[serial]), serial))
        yield (next(serial for serial in ranked if array.fits(serial)),)


class Array(Controller):  # type: ignore[misc] # covertable has no types
    """covertable's controller, with legality asked of a decision diagram.

    :param order: the axes, in the order of a row's values.
    :param strength: how many axes at a time have all their legal values covered.
    """

    def __init__(self, found: Legal, order: Sequence[str], strength: int) -> None:
        self._found = found
        places = {name: number for number, name in enumerate(found.diagrams.variables)}
        values = [(places[name], index) for name in order for index in range(len(found.diagrams.variables[name]))]
        self._place = dict(enumerate(values))
        self.wanted: dict[int, int] = {}
        super().__init__(
            {name: list(found.diagrams.variables[name]) for name in order},
            strength=strength,
            criterion=SimpleNamespace(extract=_grow),
        )
        self.wanted = {serial: 0 for serials in self.serials.values() for serial in serials}
        for serials in self.incomplete:
            self._count(serials, 1)

    def _count(self, serials: Iterable[int], change: int) -> None:
        for serial in serials:
            self.wanted[serial] += change

    def _possible(self, serials: Iterable[int]) -> bool:
        return self._found.diagrams.possible(self._found.node, dict(self._place[serial] for serial in serials))

    def fits(self, serial: int) -> bool:
        """Whether the row that is being made can have one more value."""
        return self._possible((*self.row.values(), serial))

    def gain(self, row: Sequence[int], serial: int) -> int:
        """How many tuples that are not covered yet a row would cover with one more value."""
        if self.strength == 2:
            return sum(((one, serial) if one < serial else (serial, one)) in self.incomplete for one in row)
        return sum(tuple(sorted((*some, serial))) in self.incomplete for some in combinations(row, self.strength - 1))

    # what covertable asks ------------------------------------------------------------------------------------------

    def _storable_check(self, candidate: Sequence[tuple[str, int]], row: Mapping[str, int] | None = None) -> bool:
        return self._possible({**(self.row if row is None else row), **dict(candidate)}.values())

    def set_pair(self, pair: Sequence[int]) -> bool:
        """Take values into the row, unless it could not be completed with them."""
        candidate = self.get_candidate(pair)
        if not self._storable_check(candidate):
            return False
        self.row.update(candidate)
        return True

    def consume_pairs(self, row: Mapping[str, int]) -> None:
        """Note what a finished row covers."""
        for serials in combinations(sorted(row.values()), self.strength):
            if self.incomplete.pop(serials, None) is not None:
                self._count(serials, -1)


def covering_array(found: Legal, order: Sequence[str], strength: int = 2) -> Rows:
    """Return rows that together have every legal combination of ``strength`` axes' values.

    :param order: the axes, in the order of a row's values.
    """
    assert found.node != FALSE
    array = Array(found, order, strength)
    return tuple(tuple(row[name] for name in order) for row in array.make_async())


def array_key(found: Legal, order: Sequence[str], strength: int) -> str:
    """Return what an array depends on, as a hash: axes with their values, constraints, strength."""
    axes = {name: found.diagrams.variables[name] for name in order}
    what = [_SCHEMA, strength, list(axes.items()), sorted(json.dumps(one) for one in found.declared())]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def kept_array(found: Legal, order: Sequence[str], strength: int, cache: Path) -> Rows:
    """Return a covering array: that of the package if it is the one, else the cache's, else a new one.

    A cache that cannot be read or written costs time and nothing else.
    """
    key = array_key(found, order, strength)
    packaged = resources.files("hvkernel.matrix") / "data" / "default.json"
    file = cache / f"{key}.json"
    for place in (packaged, file):
        try:
            text = place.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        rows = _read(text, key, found, order)
        if rows is not None:
            return rows
    rows = covering_array(found, order, strength)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(array_text(key, order, rows), "utf-8")
        aside.replace(file)
    except OSError:
        pass
    return rows


def array_text(key: str, order: Sequence[str], rows: Rows) -> str:
    """Return an array as the text of its file, a row a line."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f'{{"schema":{_SCHEMA},"key":"{key}","axes":{json.dumps(list(order))},"rows":[\n{lines}\n]}}\n'


def _read(text: str, key: str, found: Legal, order: Sequence[str]) -> Rows | None:
    """Read an array; ``None`` for one of other axes or constraints, and for a damaged one."""
    try:
        data: Any = json.loads(text)
        if data["schema"] != _SCHEMA or data["key"] != key:
            return None
        rows = tuple(tuple(map(str, row)) for row in data["rows"])
        legal_rows = all(found.diagrams.holds(found.node, dict(zip(order, row, strict=True))) for row in rows)
    except (ValueError, KeyError, TypeError):
        return None
    return rows if rows and legal_rows else None
