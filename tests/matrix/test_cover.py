"""Covering arrays, the full product, random cells: complete, the same everywhere, and kept."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import covertable
import pytest

from hvkernel.boot.plugins import Plugins, load
from hvkernel.config.errors import InputError
from hvkernel.config.matrix import MatrixSpec, change_spec, default_spec
from hvkernel.kconfig.diagram import FALSE
from hvkernel.matrix import cover
from hvkernel.matrix.axes import axes_of, plugin_axes
from hvkernel.matrix.cover import Cells, array_key, cells_of, covering_array, user_cache
from hvkernel.matrix.legal import Legal, legal
from hvkernel.matrix.model import Cell

SPEC = MatrixSpec(
    axes={
        "arch": ("x86", "arm64"),
        "bits": ("64", "32"),
        "page_size": ("4K", "16K", "64K"),
        "host": ("ws2012/gen1", "ws2022/gen1", "ws2022/gen2", "azure-arm64/gen2"),
        "cpus": ("1", "4", "65"),
    },
    symbols={"MODULES": ("y", "n"), "HYPERV": ("y", "m"), "HYPERV_STORAGE": ("y", "m", "n"), "SCSI": ("y", "m", "n")},
)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


@pytest.fixture(scope="module")
def found(plugins: Plugins) -> Legal:
    return legal(SPEC, axes_of(SPEC), plugins)


def tuples(rows: object, strength: int) -> set[object]:
    order = tuple(SPEC.varied)
    assert isinstance(rows, list | tuple)
    return {some for row in rows for some in itertools.combinations(list(zip(order, row, strict=True)), strength)}


@pytest.mark.parametrize("strength", [1, 2, 3, 4])
def test_an_array_has_every_legal_tuple_and_no_other(strength: int, found: Legal) -> None:
    cells = list(found.diagrams.combinations(found.node))
    assert tuple(found.diagrams.variables) == tuple(SPEC.varied)
    rows = covering_array(found, tuple(SPEC.varied), strength)
    assert {*rows} <= {*cells}
    assert tuples(rows, strength) == tuples(cells, strength)
    assert len(rows) < len(cells) / 2


def test_covertables_own_reading_of_the_constraints_covers_the_same(found: Legal) -> None:
    factors = {name: list(values) for name, values in SPEC.varied.items()}
    rows = covertable.make(factors, constraints=found.declared())
    theirs = tuples([tuple(row[name] for name in SPEC.varied) for row in rows], 2)
    ours = covering_array(found, tuple(SPEC.varied), 2)
    assert tuples(ours, 2) == theirs
    assert len(ours) <= 1.25 * len(rows)


def test_the_array_in_the_package_is_the_default_specs_and_complete(plugins: Plugins, tmp_path: Path) -> None:
    spec = default_spec()
    order = tuple(spec.varied)
    found = legal(spec, axes_of(spec, plugin_axes(plugins)), plugins)
    kept = json.loads((Path(cover.__file__).parent / "data" / "default.json").read_text("utf-8"))
    assert kept["key"] == array_key(found, order, 2), "run tools/gen_matrix_array.py"
    cells = cells_of(spec, cache=tmp_path, found=found)
    assert [list(row) for row in cells.rows] == kept["rows"]
    assert not list(tmp_path.iterdir())
    covered = {pair for row in cells.rows for pair in itertools.combinations(list(zip(order, row, strict=True)), 2)}
    for one, other in itertools.combinations(order, 2):
        for pair in itertools.product(spec.varied[one], spec.varied[other]):
            values = {one: pair[0], other: pair[1]}
            assert (tuple(values.items()) in covered) == found.allows(values), values
    assert len(cells) == len(cells.rows) * len(cells.seeds) >= 3000 > len(cells.rows) * (len(cells.seeds) - 1)


PROGRAM = """
from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.cover import cells_of
import pathlib, sys
for cover in ("t=3", 40):
    spec = MatrixSpec.model_validate_json(sys.argv[1]).model_copy(update={"cover": cover})
    print([cell.key for cell in cells_of(spec, cache=pathlib.Path(sys.argv[2]))])
"""


def test_the_same_cells_whatever_the_hash_seed(tmp_path: Path) -> None:
    spec = SPEC.to_json()
    outputs = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, spec, str(tmp_path / seed)],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
        )
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    files = [list((tmp_path / seed).iterdir()) for seed in ("1", "2")]
    assert files[0][0].name == files[1][0].name
    assert files[0][0].read_bytes() == files[1][0].read_bytes()


def test_cells_are_numbered_seed_by_seed() -> None:
    cells = Cells(("a", "b"), [("1", "x"), ("2", "y")], (7, 9))
    wanted = [
        Cell(0, (("a", "1"), ("b", "x")), 7),
        Cell(1, (("a", "2"), ("b", "y")), 7),
        Cell(2, (("a", "1"), ("b", "x")), 9),
        Cell(3, (("a", "2"), ("b", "y")), 9),
    ]
    assert list(cells) == [cells[n] for n in range(4)] == cells[:] == wanted
    assert (cells[-1], cells[1:3], len(cells)) == (wanted[3], wanted[1:3], 4)
    for number in (4, -5):
        with pytest.raises(IndexError):
            cells[number]


def test_full_is_every_legal_cell_and_streams(found: Legal, plugins: Plugins) -> None:
    full = change_spec(SPEC, {"cover": "full"}, where="test")
    cells = cells_of(full, plugins)
    assert len(cells) == found.count
    assert [tuple(cell.by_axis.values()) for cell in cells] == list(found.diagrams.combinations(found.node))
    assert cells[100] == list(itertools.islice(cells, 101))[-1]
    large = {"axes": {**SPEC.axes, "hz": ("100", "250", "300", "1000"), "devices": ("profile", "root", "late")}}
    huge = change_spec(full, {**large, "seeds": 1000}, where="test")
    began = time.process_time()
    cells = cells_of(huge, plugins)
    assert len(cells) == 12 * found.count * 1000
    assert cells[len(cells) - 1].seed == 999
    assert len(list(itertools.islice(cells, 1000))) == 1000
    assert time.process_time() - began < 10


def test_the_order_of_a_cell_is_the_specs(plugins: Plugins) -> None:
    spec = MatrixSpec(axes={"cpus": ("1", "2"), "arch": ("x86", "arm64")}, cover="full")
    cells = cells_of(spec, plugins)
    assert cells[0].values == (("cpus", "1"), ("arch", "x86"))
    assert {cell.values for cell in cells} == {
        (("cpus", cpus), ("arch", arch)) for cpus in ("1", "2") for arch in ("x86", "arm64")
    }


def test_random_cells_are_different_legal_and_the_draws(found: Legal, plugins: Plugins) -> None:
    some = change_spec(SPEC, {"cover": 200}, where="test")
    cells = cells_of(some, plugins)
    rows = [tuple(cell.by_axis.values()) for cell in cells]
    assert len(rows) == len({*rows}) == 200
    assert all(found.allows(cell.by_axis) for cell in cells)
    assert list(cells_of(some, plugins)) == list(cells)
    other = cells_of(change_spec(some, {"draw": 1}, where="test"), plugins)
    assert list(other) != list(cells)
    assert len(cells_of(change_spec(SPEC, {"cover": 10**9}, where="test"), plugins)) == found.count


def test_as_many_seeds_as_give_so_many_cells(plugins: Plugins, tmp_path: Path) -> None:
    cells = cells_of(change_spec(SPEC, {"least": 100}, where="test"), plugins, cache=tmp_path)
    assert len(cells) - len(cells.rows) < 100 <= len(cells)
    assert cells.seeds == tuple(range(len(cells.seeds)))


WRONG = [
    ("t=9", "f.toml: cover = 't=9': covers 9 axes at a time; the spec has 1"),
    ("pairwise", "f.toml: cover = 'pairwise': covers 2 axes at a time; the spec has 1"),
]


@pytest.mark.parametrize(("how", "message"), WRONG)
def test_more_axes_at_a_time_than_there_are(how: str, message: str, plugins: Plugins) -> None:
    spec = MatrixSpec(axes={"cpus": ("1", "2")}, cover=how, source="f.toml")
    with pytest.raises(InputError) as error:
        cells_of(spec, plugins)
    assert str(error.value) == message


def test_one_axis_needs_no_word_on_the_cover(plugins: Plugins) -> None:
    spec = MatrixSpec(axes={"cpus": ("1", "2")})
    assert [cell.values for cell in cells_of(spec, plugins)] == [(("cpus", "1"),), (("cpus", "2"),)]


def test_too_many_cells(plugins: Plugins, found: Legal) -> None:
    cpus = tuple(map(str, range(1, 241)))
    wide = {"cpus": cpus, "hz": ("100", "250", "300", "1000"), "policy": tuple(f"random:{n}" for n in range(2000))}
    spec = change_spec(SPEC, {"cover": "full", "axes": {**SPEC.axes, **wide}}, where="test")
    with pytest.raises(InputError, match=r"cover = 'full': is \d+ cells; a run has at most 100000000"):
        cells_of(spec, plugins)
    with pytest.raises(InputError, match=r"<spec>: seeds: 308 combinations under 1000000 seeds are more than"):
        cells_of(change_spec(SPEC, {"cover": "full", "seeds": 1_000_000}, where="test"), plugins)


# the cache -----------------------------------------------------------------------------------------------------


def test_an_array_is_made_once(found: Legal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cells_of(SPEC, cache=tmp_path / "deep" / "er", found=found)
    (file,) = (tmp_path / "deep" / "er").iterdir()
    assert file.name == array_key(found, tuple(SPEC.varied), 2) + ".json"
    monkeypatch.setattr(cover, "covering_array", lambda *_: pytest.fail("made again"))
    assert list(cells_of(SPEC, cache=tmp_path / "deep" / "er", found=found)) == list(first)


DAMAGE = ["", "{", "[]", '{"schema":1}', "\xff", None, "other key", "an illegal row", "a short row", "no row"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_made_again(damage: str | None, found: Legal, tmp_path: Path) -> None:
    first = cells_of(SPEC, cache=tmp_path, found=found)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    data = json.loads(good)
    if damage is None:
        file.unlink()
        file.mkdir()
    elif " " not in damage:
        file.write_bytes(damage.encode("latin-1"))
    else:
        if damage == "other key":
            data["key"] = "0" * 32
        elif damage == "an illegal row":
            data["rows"][0] = ["arm64", "32", *data["rows"][0][2:]]
        elif damage == "a short row":
            data["rows"][0].pop()
        else:
            data["rows"] = []
        file.write_text(json.dumps(data))
    assert list(cells_of(SPEC, cache=tmp_path, found=found)) == list(first)
    if damage is not None:
        assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(found: Legal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(cells_of(SPEC, cache=tmp_path / "file" / "below", found=found)) > 10


def test_another_constraint_is_another_array(found: Legal, plugins: Plugins) -> None:
    order = tuple(SPEC.varied)
    spec = change_spec(SPEC, {"rule": [{"when": {"cpus": "65"}, "then": {"SCSI": "y"}}]}, where="test")
    other = legal(spec, axes_of(spec), plugins)
    assert other.node not in (found.node, FALSE)
    keys = {array_key(found, order, 2), array_key(found, order, 3), array_key(other, order, 2)}
    assert len(keys) == 3


def test_where_arrays_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert user_cache() == Path("/caches/hvkernel/arrays")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path("/home/me/.cache/hvkernel/arrays")
