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
