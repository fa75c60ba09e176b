"""The file of a run's results: what it keeps, what it refuses, and what is left when a disk is full."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvkernel.matrix import store as store_module
from hvkernel.matrix.model import Cell, CellResult, Problem
from hvkernel.matrix.store import SCHEMA, Row, Store, StoreError, result_of, row_of


@dataclass(frozen=True)
class AnySpec:
    """Stands for a spec: a store wants nothing of it but its JSON."""

    data: dict[str, Any] = field(default_factory=lambda: {"axes": {"arch": ["x86", "arm64"]}, "cover": "pairwise"})

    def to_json(self) -> str:
        return json.dumps(self.data)


SPEC = AnySpec()
PAIRS = st.dictionaries(st.text(), st.text()).map(lambda axes: tuple(axes.items()))
SIGNED = st.integers(0, 2**63 - 1)
CELLS = st.builds(Cell, number=SIGNED, values=PAIRS, seed=st.integers(0, 2**64 - 1))
RESULTS = st.builds(
    CellResult,
    cell=CELLS,
    status=st.sampled_from(["pass", "fail", "crash", "over-budget"]),
    outcome=st.sampled_from(["up", "panic", ""]),
    phase=st.sampled_from(["boot", ""]),
    problems=st.lists(st.builds(Problem, st.text(), st.text())).map(tuple),
    dmesg=st.lists(st.text(st.characters())).map(tuple),
    virtual=SIGNED,
    steps=SIGNED,
    cpu_ms=st.floats(0, 1e6),
    undriven=st.lists(st.text(max_size=8), max_size=3).map(tuple),
)


def a_result(number: int, status: Any = "pass") -> CellResult:
    cell = Cell(number, (("arch", "x86"), ("cpus", str(number))), seed=2**64 - 1)
    problems = () if status == "pass" else (Problem("ledger", "one page is still shared"),)
    return CellResult(cell, status, "up", "invariants", problems, ("<b>\x1b[31m\x00\ud800",), 12, 34, 5.5)


@given(RESULTS)
def test_a_row_reads_back_as_its_result(result: CellResult) -> None:
    row = row_of(result)
    assert result_of(row) == result
    for text in (row.axes, row.problems, row.dmesg):
        assert text.isascii()
        assert text.isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=20)
@given(st.lists(RESULTS, unique_by=(lambda r: r.cell.number, lambda r: r.cell.key)))
def test_results_are_there_in_order_after_the_file_was_closed(tmp_path: Path, results: list[CellResult]) -> None:
    path = tmp_path / "store"
    path.unlink(missing_ok=True)
    with Store(path, SPEC) as store:
        for result in results:
            store.add(result)
    with Store(path, SPEC) as store:
        assert list(store.results()) == sorted(results, key=lambda r: r.cell.number)
        assert list(store.failures()) == [r for r in store.results() if r.status != "pass"]
        assert store.done_keys() == {r.cell.key for r in results}
        assert sum(store.counts().values()) == len(results)
        low, high = 10, 1 << 40
        inside = {r.cell.key for r in results if low <= r.cell.number <= high}
        assert store.done_keys(low, high) == inside


def test_the_first_result_of_a_cell_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "s", SPEC) as store:
        store.add(a_result(1))
        store.add(replace(a_result(1), status="fail"))
        store.add(a_result(2, "crash"))
        assert [(r.cell.number, r.status) for r in store.results()] == [(1, "pass"), (2, "crash")]
        assert store.counts() == {"crash": 1, "pass": 1}


def test_another_cell_of_the_same_number_is_refused_with_its_whole_batch(tmp_path: Path) -> None:
    with Store(tmp_path / "s", SPEC) as store:
        store.add(a_result(1))
        other = replace(a_result(3), cell=Cell(1, (("arch", "arm64"),), 0))
        with pytest.raises(StoreError, match=r"cannot take more results: UNIQUE constraint failed: cell\.number"):
            store.add_rows([row_of(a_result(2)), row_of(other)])
        assert store.done_keys() == {a_result(1).cell.key}


def test_a_cell_that_names_an_axis_twice_has_no_row() -> None:
    result = replace(a_result(1), cell=Cell(1, (("arch", "x86"), ("arch", "arm64")), 0))
    with pytest.raises(ValueError, match="names an axis twice"):
        row_of(result)


def test_two_programs_may_write_the_same_file(tmp_path: Path) -> None:
    with Store(tmp_path / "s", SPEC) as one, Store(tmp_path / "s", SPEC) as two:
        one.add_rows([row_of(a_result(n)) for n in (0, 1, 2)])
        two.add_rows([row_of(a_result(n)) for n in (2, 3)])
        assert one.done_keys() == two.done_keys() == {a_result(n).cell.key for n in range(4)}


def test_any_sqlite_program_reads_it(tmp_path: Path) -> None:
    with Store(tmp_path / "s", SPEC) as store:
        store.add_rows([row_of(a_result(n, "fail" if n % 2 else "pass")) for n in range(10)])
        # While the run goes on, as somebody looks over its shoulder.
        with sqlite3.connect(tmp_path / "s") as db:
            query = "SELECT axes ->> '$.cpus', problems ->> '$[0][0]' FROM cell WHERE status <> 'pass' ORDER BY number"
            assert db.execute(query).fetchall() == [(str(n), "ledger") for n in range(1, 10, 2)]
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.close()


def text_of(error: pytest.ExceptionInfo[StoreError], path: Path) -> str:
    return str(error.value).replace(str(path), "FILE")


def with_a_result(path: Path, spec: AnySpec) -> None:
    with Store(path, spec) as store:
        store.add(a_result(0))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"axes": {"arch": ["x86"]}, "cover": "pairwise"},
            'FILE: axes.arch = \'["x86"]\': its results are of a run with ["x86","arm64"]; '
            "take another file, or remove this one",
        ),
        (
            {"axes": {"arch": ["x86", "arm64"]}, "cover": "pairwise", "seeds": 3},
            "FILE: seeds = '3': its results are of a run with null; take another file, or remove this one",
        ),
        (
            {"cover": "pairwise", "axes": {"arch": ["x86", "arm64"]}},
            'FILE: order = \'["cover","axes"]\': its results are of a run with ["axes","cover"]; '
            "take another file, or remove this one",
        ),
    ],
)
def test_a_store_of_another_spec_is_refused_by_the_field_that_differs(
    tmp_path: Path, data: dict[str, Any], said: str
) -> None:
    with_a_result(tmp_path / "s", SPEC)
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "s", AnySpec(data))
    assert text_of(error, tmp_path / "s") == said


def test_a_store_without_a_result_is_of_whatever_spec_comes_first(tmp_path: Path) -> None:
    """A run that ended before its first cell must not keep the next one from going on with a mended spec."""
    Store(tmp_path / "s", SPEC).close()
    other = AnySpec({"axes": {"arch": ["x86"]}})
    with Store(tmp_path / "s", other) as mine, Store(tmp_path / "s", SPEC) as theirs:
        theirs.add(a_result(1))
        with pytest.raises(StoreError) as error:
            mine.add(a_result(2))
        theirs.add(a_result(3))
    assert text_of(error, tmp_path / "s") == "FILE: another run has begun to write it; take another file"
    with Store(tmp_path / "s", SPEC) as store:
        assert [one.cell.number for one in store.results()] == [1, 3]


def test_a_spec_may_move_and_be_renamed(tmp_path: Path) -> None:
    with_a_result(tmp_path / "s", AnySpec(SPEC.data | {"source": "a.toml"}))
    Store(tmp_path / "s", AnySpec(SPEC.data | {"source": "b/a.toml", "title": "Mine"})).close()


def test_a_store_of_another_hvkernel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_result(tmp_path / "s", SPEC)
    monkeypatch.setattr(store_module, "__version__", "9.9")
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "s", SPEC)
    assert text_of(error, tmp_path / "s") == "FILE: its results are of hvkernel 0.1.0, this is 9.9; take another file"


def spoil(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def full_store(path: Path) -> None:
    with Store(path, SPEC) as store:
        store.add_rows([row_of(a_result(n)) for n in range(500)])


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version=7", "FILE: schema = 7: this hvkernel (0.1.0) reads schema 2; take another file"),
        (
            "PRAGMA application_id=1",
            "FILE: is a SQLite database, but of something else than hvkernel matrix",
        ),
        ("DELETE FROM run", "FILE: is damaged: it does not say of which spec its results are"),
        ("UPDATE run SET spec = '{'", "FILE: is damaged: it does not say of which spec its results are"),
        ("UPDATE run SET spec = '7'", "FILE: is damaged: it does not say of which spec its results are"),
        ("DROP TABLE run", "FILE: cannot be used: no such table: run"),
        ("DROP TABLE cell", "FILE: cannot be used: no such table: cell"),
        (
            "UPDATE cell SET seed = '5' WHERE number = 3",
            f"FILE: is damaged: cell 3: its key is {a_result(3).cell.key}, its values and seed have "
            f"{Cell(3, a_result(3).cell.values, 5).key}",
        ),
        ("UPDATE cell SET axes = '[]' WHERE number = 3", "FILE: is damaged: cell 3: 'list' object has no"),
        ("UPDATE cell SET dmesg = '{' WHERE number = 3", "FILE: is damaged: cell 3: Expecting property name"),
    ],
)
def test_a_spoilt_store_is_refused(tmp_path: Path, statement: str, said: str) -> None:
    full_store(tmp_path / "s")
    spoil(tmp_path / "s", statement)
    with pytest.raises(StoreError) as error, Store(tmp_path / "s", SPEC) as store:
        list(store.results())
    assert text_of(error, tmp_path / "s").startswith(said)


def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("# hvkernel matrix\n" * 100)
    with pytest.raises(StoreError) as error:
        Store(path, SPEC)
    assert text_of(error, path) == "FILE: cannot be used: file is not a database"
    assert path.read_text() == "# hvkernel matrix\n" * 100


@pytest.mark.parametrize("how", ["cut", "overwritten", "zeros"])
def test_a_damaged_store_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    full_store(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "overwritten": whole[:middle] + b"\xa5" * 8192 + whole[middle + 8192 :],
            "zeros": bytes(100) + whole[100:],
        }[how]
    )
    with pytest.raises(StoreError, match=r"is damaged|malformed|not a database|disk I/O error"):
        Store(path, SPEC)


@pytest.mark.parametrize(
    ("name", "said"),
    [(".", "is no file"), ("none/s", "cannot be opened: unable to open database file")],
)
def test_a_path_that_can_hold_no_file_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(StoreError) as error:
        Store(tmp_path / name, SPEC)
    assert text_of(error, tmp_path / name) == f"FILE: {said}"


def test_a_file_of_somebody_elses_program_is_refused(tmp_path: Path) -> None:
    spoil(tmp_path / "s", "CREATE TABLE bookmark (url TEXT)")
    with pytest.raises(StoreError, match="is a SQLite database, but of something else"):
        Store(tmp_path / "s", SPEC)


@pytest.fixture
def open_directory(tmp_path: Path) -> Path:
    """A directory that everyone may enter, whatever pytest makes of its own."""
    for directory in (tmp_path, *tmp_path.parents):
        if not any(parent.name.startswith("pytest-of-") for parent in (directory, *directory.parents)):
            break
        directory.chmod(0o755)
    return tmp_path


def test_a_file_that_may_not_be_written_is_refused_before_the_first_cell(
    open_directory: Path, request: pytest.FixtureRequest
) -> None:
    path = open_directory / "s"
    full_store(path)
    path.chmod(0o444)
    open_directory.chmod(0o555)
    request.getfixturevalue("unprivileged")
    with pytest.raises(StoreError) as error:
        Store(path, SPEC)
    assert re.match(r"FILE: cannot be (used|opened): (attempt to write a readonly|unable to)", text_of(error, path))
    with Store(path) as store:
        assert len(list(store.results())) == 500
    with pytest.raises(StoreError, match="cannot be opened: unable to open database file"):
        Store(open_directory / "new", SPEC)


def test_a_directory_that_may_not_be_entered_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    request.getfixturevalue("unprivileged")
    if os.access(closed, os.X_OK, effective_ids=True):
        closed.chmod(0)
    with pytest.raises(StoreError) as error:
        Store(closed / "s", SPEC)
    assert text_of(error, closed / "s").startswith("FILE: cannot be opened: ")


def test_it_is_read_without_a_spec(tmp_path: Path) -> None:
    full_store(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert json.loads(store.spec) == SPEC.data
        assert store.counts() == {"pass": 500}
    with pytest.raises(StoreError, match="there is no such file"):
        Store(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def fill(path: Path) -> tuple[list[int], str]:
    """Add results until it fails. Returns the numbers that were said to be kept, and the error."""
    kept: list[int] = []
    with Store(path, SPEC) as store:
        try:
            for number in range(20_000):
                store.add(a_result(number))
                kept.append(number)
        except StoreError as error:
            return kept, str(error).replace(str(path), "FILE")
    raise AssertionError("the disk was not full")


ON_A_SMALL_DISK = """
import importlib.util, json, resource, sys
from pathlib import Path

there = importlib.util.spec_from_file_location("test_store", sys.argv[1])
test_store = importlib.util.module_from_spec(there)
sys.modules["test_store"] = test_store
there.loader.exec_module(test_store)
path = Path(sys.argv[2], "s")
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)  # Python ignores SIGXFSZ
kept, said = test_store.fill(path)
with test_store.Store(path) as store:
    print(json.dumps([kept, said, [r.cell.number for r in store.results()]]))
"""


def test_a_file_that_may_not_grow_keeps_what_was_committed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_A_SMALL_DISK, __file__, str(tmp_path), "900000"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    kept, said, there = json.loads(done.stdout)
    assert said == "FILE: cannot take more results: disk I/O error"
    assert len(kept) > 50
    assert there == kept
    with Store(tmp_path / "s", SPEC) as store:  # there is room again
        assert [r.cell.number for r in store.results()] == kept
        store.add(a_result(kept[-1] + 1))


def test_a_full_disk_loses_no_result(tmp_path: Path, program: Any, missing: Any) -> None:
    unshare = program("unshare", "util-linux")
    own = "-m" if os.geteuid() == 0 else "-rm"
    if subprocess.run([unshare, own, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        missing("this machine gives its users no mount namespace")
    mounted = 'mount -t tmpfs -o size=1m none "$4"; exec "$1" -c "$2" "$3" "$4"'
    command = [unshare, own, "sh", "-ec", mounted, "sh", sys.executable, ON_A_SMALL_DISK, __file__, tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    kept, said, there = json.loads(done.stdout)
    assert said == "FILE: cannot take more results: database or disk is full"
    assert len(kept) > 50
    assert there == kept


def test_the_columns_are_those_of_a_row() -> None:
    assert Row._fields == tuple(re.findall(r"^    (\w+) +[IRT]", SCHEMA.split(";")[1], re.MULTILINE))
