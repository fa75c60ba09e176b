"""The tree, the wheel, the entry points and the linters' tables must say the same thing."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IN_TREE = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for pattern in ("plugins/*/__init__.py", "arch/*/*/__init__.py")
    for path in ROOT.glob(pattern)
)
SOURCES = sorted(p for d in ("hvkernel", "plugins", "arch", "tests") for p in (ROOT / d).rglob("*.py"))


@pytest.mark.parametrize("directory", IN_TREE)
def test_every_plugin_directory_is_shipped_and_declared(directory: str) -> None:
    package = directory.rsplit("/", 1)[-1]
    assert directory in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert f"$MYPY_CONFIG_FILE_DIR/{directory.rsplit('/', 1)[0]}" in PYPROJECT["tool"]["mypy"]["mypy_path"]
    assert package in PYPROJECT["project"]["entry-points"]["hvkernel"].values()
    assert package in PYPROJECT["tool"]["importlinter"]["root_packages"]


@pytest.mark.parametrize("name", PYPROJECT["project"]["entry-points"]["hvkernel"])
def test_every_declared_entry_point_is_installed(name: str) -> None:
    installed = {entry.name for entry in entry_points(group="hvkernel")}
    assert name in installed, "entry points are read at install time: run `pip install -e .` again"


def test_the_pytest_plugin_is_installed() -> None:
    declared = PYPROJECT["project"]["entry-points"]["pytest11"].items()
    installed = {(entry.name, entry.value) for entry in entry_points(group="pytest11")}
    assert declared <= installed, "entry points are read at install time: run `pip install -e .` again"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_source_roots_are_never_imported_as_packages(path: Path) -> None:
    # An editable install puts the repository root on sys.path, so `import plugins` would work here and nowhere else.
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & {"plugins", "arch", "tests", "docs"}, path


CONTRACTS = PYPROJECT["tool"]["importlinter"]["contracts"]
HOST_SIDE, GUEST_SIDE = ("vsp", "host"), ("vsc", "guest")


def sided(prefixes: tuple[str, ...]) -> set[str]:
    """Modules of plugins and architectures whose name says which side of the boundary they are on."""
    found = set()
    for directory in IN_TREE:
        for path in (ROOT / directory).iterdir():
            if path.stem.partition("_")[0] in prefixes and (path.suffix == ".py" or path.is_dir()):
                found.add(f"{Path(directory).name}.{path.stem}")
    return found


def contract(name: str) -> dict[str, list[str]]:
    return next(entry for entry in CONTRACTS if entry["name"] == name)


def test_the_sides_in_the_contracts_are_those_of_the_tree() -> None:
    host = {"hvkernel.host", "hvkernel.api.host", *sided(HOST_SIDE)}
    guest = {"hvkernel.linux", "hvkernel.hv", "hvkernel.api.guest", *sided(GUEST_SIDE)}
    assert sided(HOST_SIDE)
    assert sided(GUEST_SIDE)
    for name, inside, outside in (
        ("The host knows nothing of the guest", host, guest),
        ("The guest knows nothing of the host", guest, host),
    ):
        assert set(contract(name)["source_modules"]) == inside
        assert set(contract(name)["forbidden_modules"]) == outside


def test_every_part_of_hvkernel_stands_in_the_layers() -> None:
    layers = CONTRACTS[-1]["layers"]
    named = {part.strip() for layer in layers for part in layer.split("|")}
    parts = {p.stem for p in (ROOT / "hvkernel").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert named == parts - {"__init__"}


@pytest.mark.parametrize(
    ("name", "homes"),
    [
        ("pydantic only in config", {"hvkernel.config"}),
        ("numba only in ring", {"hvkernel.ring"}),
        ("pluggy only in api and boot", {"hvkernel.api", "hvkernel.boot"}),
        ("greenlet only in machine", {"hvkernel.machine"}),
        ("kconfiglib only in kconfig", {"hvkernel.kconfig"}),
        ("click and rich only in cli", {"hvkernel.cli"}),
        ("pytest only in testing", {"hvkernel.testing"}),
        ("jinja2, covertable and dask only in matrix", {"hvkernel.matrix"}),
    ],
)
def test_a_library_is_forbidden_everywhere_but_at_home(name: str, homes: set[str]) -> None:
    parts = {f"hvkernel.{p.name}" for p in (ROOT / "hvkernel").iterdir() if (p / "__init__.py").exists()}
    everywhere = parts | {Path(directory).name for directory in IN_TREE}
    assert set(contract(name)["source_modules"]) == everywhere - homes
