"""The results of a run, one SQLite row per cell, written as they come.

The file is in WAL mode and each batch of results is one transaction: whatever ends the program, the rows that were
committed are there. The schema is :data:`SCHEMA`; ``user_version`` counts its changes and ``application_id`` says
whose file it is.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

from hvkernel import __version__
from hvkernel.config.errors import InputError
from hvkernel.matrix.model import Cell, CellResult, Problem

__all__ = ["APPLICATION_ID", "SCHEMA", "SCHEMA_VERSION", "Row", "Spec", "Store", "StoreError", "result_of", "row_of"]

APPLICATION_ID: Final = 0x68766B6D
"""``hvkm`` in ASCII: SQLite's mark of whose file it is."""
SCHEMA_VERSION: Final = 2

SCHEMA: Final = """\
CREATE TABLE run (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    spec    TEXT NOT NULL,
    version TEXT NOT NULL
);
CREATE TABLE cell (
    number   INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    axes     TEXT NOT NULL,
    seed     TEXT NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('pass', 'fail', 'crash', 'over-budget')),
    outcome  TEXT NOT NULL,
    phase    TEXT NOT NULL,
    problems TEXT NOT NULL,
    dmesg    TEXT NOT NULL,
    undriven TEXT NOT NULL,
    virtual  INTEGER NOT NULL,
    steps    INTEGER NOT NULL,
    cpu_ms   REAL NOT NULL
);
CREATE INDEX cell_not_passed ON cell (number) WHERE status <> 'pass';
"""
"""The statements that make the tables."""


UNIMPORTANT: Final = ("source", "title")
"""Fields of a spec that change no result."""


class StoreError(InputError):
    """The file cannot hold, or does not hold, the results of this run."""


class Spec(Protocol):
    """What a store needs of a spec: a JSON object that is the same for the same run."""

    def to_json(self) -> str: ...


class Row(NamedTuple):
    """One row of ``cell``, in the order of its columns."""

    number: int
    key: str
    axes: str
    """JSON object, axis: value, in the order of the axes."""
    seed: str
    """Decimal: 64 bits without a sign do not fit SQLite's integer."""
    status: str
    outcome: str
    phase: str
    problems: str
    """JSON array of ``[invariant, text]``."""
    dmesg: str
    """JSON array of lines."""
    undriven: str
    """JSON array of names."""
    virtual: int
    steps: int
    cpu_ms: float


def row_of(result: CellResult) -> Row:
    """Return a result as a row. Workers do this, so that the coordinator has nothing left to do but to insert.

    :raises ValueError: the cell names an axis twice.
    """
    cell = result.cell
    axes = cell.by_axis
    if len(axes) != len(cell.values):
        raise ValueError(f"cell {cell.number} names an axis twice: {cell.values}")
    return Row(
        cell.number,
        cell.key,
        _dump(axes),
        str(cell.seed),
        result.status,
        result.outcome,
        result.phase,
        _dump([[one.invariant, one.text] for one in result.problems]),
        _dump(result.dmesg),
        _dump(result.undriven),
        result.virtual,
        result.steps,
        result.cpu_ms,
    )


def result_of(row: Row) -> CellResult:
    """Read a row.

    :raises ValueError: it is not what :func:`row_of` writes.
    """
    values: Mapping[str, str] = json.loads(row.axes)
    cell = Cell(row.number, tuple(values.items()), int(row.seed))
    if cell.key != row.key:
        raise ValueError(f"its key is {row.key}, its values and seed have {cell.key}")
    return CellResult(
        cell,
        row.status,  # type: ignore[arg-type] # the table has a CHECK
        row.outcome,
        row.phase,
        tuple(Problem(invariant, text) for invariant, text in json.loads(row.problems)),
        tuple(json.loads(row.dmesg)),
        row.virtual,
        row.steps,
        row.cpu_ms,
        tuple(json.loads(row.undriven)),
    )


class Store:
    """The results of one run. Belongs to the thread that opened it."""

    def __init__(self, path: Path, spec: Spec | None = None) -> None:
        """Open the results of ``spec`` at ``path``, making the file where there is none.

        :param spec: ``None`` to read a file that exists, whatever its spec.
        :raises StoreError: it is no such file, a damaged one, of another schema, of another spec, or cannot be
            written.
        """
        self.path = path
        self._read_only = spec is None
        self._claimed = False
        with self._errors("cannot be opened"):
            self._db = self._connect()
        try:
            with self._errors("cannot be used"):
                self._prepare(spec)
        except BaseException:
            self._db.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        try:
            exists, is_file = self.path.exists(), self.path.is_file()
        except OSError as error:
            raise StoreError(str(self.path), limit=f"cannot be opened: {error.strerror}") from None
        if exists and not is_file:
            raise StoreError(str(self.path), limit="is no file")
        if not self._read_only:
            return sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
        if not exists:
            raise StoreError(str(self.path), limit="there is no such file")
        # mode=ro cannot read a WAL that a crash left, nor any WAL database in a directory that is not ours; immutable
        # can do the latter where everything is in the main file.
        if not os.access(self.path.parent, os.W_OK, effective_ids=True) and not Path(f"{self.path}-wal").exists():
            uri = f"{self.path.resolve().as_uri()}?immutable=1"
            return sqlite3.connect(uri, uri=True, isolation_level=None)
        return sqlite3.connect(self.path, timeout=30.0, isolation_level=None)

    def _prepare(self, spec: Spec | None) -> None:
        application = self._pragma("application_id")
        if self._pragma("schema_version") == 0 and not self._read_only:
            self._create(spec)
        elif application != APPLICATION_ID:
            raise StoreError(str(self.path), limit="is a SQLite database, but of something else than hvkernel matrix")
        schema = self._pragma("user_version")
        if schema != SCHEMA_VERSION:
            limit = f"this hvkernel ({__version__}) reads schema {SCHEMA_VERSION}; take another file"
            raise StoreError(str(self.path), "schema", schema, limit)
        complaint = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if complaint != "ok":
            raise StoreError(str(self.path), limit=f"is damaged: {complaint}")
        row = self._db.execute("SELECT spec, version FROM run").fetchone()
        if row is None:
            raise StoreError(str(self.path), limit="is damaged: it does not say of which spec its results are")
        self.spec: str = row[0]
        self.version: str = row[1]
        if spec is not None:
            self._db.execute("PRAGMA synchronous=NORMAL")
            # Finds out now, not after the first cell, that the file cannot be written.
            self._db.execute("BEGIN IMMEDIATE")
            self._claimed = self._db.execute("SELECT 1 FROM cell LIMIT 1").fetchone() is not None
            if not self._claimed:
                # A run that ended before its first result claims nothing.
                self.spec, self.version = spec.to_json(), __version__
            self._same_run(spec)
            self._db.execute("UPDATE run SET spec = ?, version = ?", (self.spec, self.version))
            self._db.execute("COMMIT")

    def _create(self, spec: Spec | None) -> None:
        assert spec is not None
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("BEGIN IMMEDIATE")
        if self._pragma("schema_version") == 0:  # or else another program was faster
            for statement in SCHEMA.split(";"):  # executescript() would commit first
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute("INSERT INTO run VALUES (1, ?, ?)", (spec.to_json(), __version__))
        self._db.execute("COMMIT")

    def _same_run(self, spec: Spec) -> None:
        ours: Any = json.loads(spec.to_json())
        try:
            theirs: Any = dict(json.loads(self.spec))
        except (ValueError, TypeError):
            limit = "is damaged: it does not say of which spec its results are"
            raise StoreError(str(self.path), limit=limit) from None
        for name in UNIMPORTANT:
            ours.pop(name, None)
            theirs.pop(name, None)
        for field, here, there in _differences(ours, theirs):
            limit = f"its results are of a run with {_short(there)}; take another file, or remove this one"
            raise StoreError(str(self.path), field, _short(here), limit)
        if self.version != __version__:
            limit = f"its results are of hvkernel {self.version}, this is {__version__}; take another file"
            raise StoreError(str(self.path), limit=limit)

    def add(self, result: CellResult) -> None:
        """Keep a result; see :meth:`add_rows`."""
        self.add_rows([row_of(result)])

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Keep results, all of them or none, in one transaction. A cell that is there already stays as it is.

        :raises StoreError: they could not be written, or the file is taken; what was committed before is safe.
        """
        with self._errors("cannot take more results"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if not self._claimed:
                    self._claim()
                self._db.executemany(
                    "INSERT INTO cell VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING", rows
                )
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk ends some transactions by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _claim(self) -> None:
        """See whether another run, on the file that was empty when both began, has taken it."""
        if self._db.execute("SELECT spec, version FROM run").fetchone() != (self.spec, self.version):
            raise StoreError(str(self.path), limit="another run has begun to write it; take another file")
        self._claimed = True

    def results(self) -> Iterator[CellResult]:
        """Every result, by number.

        :raises StoreError: a row cannot be read.
        """
        return self._select("")

    def failures(self) -> Iterator[CellResult]:
        """Results of the cells that did not pass, by number."""
        return self._select(" WHERE status <> 'pass'")

    def _select(self, where: str) -> Iterator[CellResult]:
        with self._errors("cannot be read"):
            for values in self._db.execute(f"SELECT * FROM cell{where} ORDER BY number"):
                try:
                    yield result_of(Row(*values))
                except (ValueError, TypeError, AttributeError) as error:
                    raise StoreError(str(self.path), limit=f"is damaged: cell {values[0]}: {error}") from None

    def done_keys(self, first: int = 0, last: int = (1 << 63) - 1) -> frozenset[str]:
        """:attr:`Cell.key` of every cell that has a result.

        :param first: only of cells from this number on.
        :param last: only of cells up to this number.
        """
        query = "SELECT key FROM cell WHERE number BETWEEN ? AND ?"
        with self._errors("cannot be read"):
            return frozenset(key for (key,) in self._db.execute(query, (first, last)))

    def counts(self) -> dict[str, int]:
        """Number of results by status, those that occur."""
        with self._errors("cannot be read"):
            return dict(self._db.execute("SELECT status, count(*) FROM cell GROUP BY status ORDER BY status"))

    def close(self) -> None:
        """Close the file; the WAL is folded into it when nobody else has it open."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pragma(self, name: str) -> int:
        value: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Say what SQLite says in one line that names the file."""
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(str(self.path), limit=f"{what}: {error}") from None


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _short(value: object) -> str:
    text = _dump(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two JSON values differ: dotted name, ours, theirs (``None`` where there is none)."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted({*ours, *theirs}):
            inner = f"{path}.{name}" if path else name
            if name not in ours or name not in theirs:
                yield inner, ours.get(name), theirs.get(name)
            else:
                yield from _differences(ours[name], theirs[name], inner)
        if list(ours) != list(theirs) and ours == theirs:
            yield path or "order", list(ours), list(theirs)
    elif ours != theirs:
        yield path or "spec", ours, theirs
