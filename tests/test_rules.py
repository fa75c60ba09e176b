"""Design rules that import-linter cannot express, read from the syntax trees (docs/design.rst names each)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DETERMINISTIC = ("hvkernel/abi", "hvkernel/machine", "hvkernel/linux", "hvkernel/hv", "hvkernel/host", "hvkernel/api")
ARCH_NEUTRAL = (
    "hvkernel/linux",
    "hvkernel/hv",
    "hvkernel/host",
    "hvkernel/machine",
    "hvkernel/ring",
    "hvkernel/boot.py",
)
ARCH_NAMES = {"x86", "x86_64", "i386", "amd64", "arm64", "aarch64"}


def sources(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def own(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(), str(path)))


def compared_names(tree: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in tree:
        literals: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            literals = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            literals = [node.slice]
        elif isinstance(node, ast.MatchValue):
            literals = [node.value]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "startswith")
        ):
            literals = list(node.args)
        for literal in literals:
            for leaf in ast.walk(literal):
                if isinstance(leaf, ast.Constant) and leaf.value in ARCH_NAMES:
                    yield leaf.lineno, str(leaf.value)


@pytest.mark.parametrize("path", sources(*ARCH_NEUTRAL, "plugins"), ids=name_of)
def test_no_behaviour_outside_arch_depends_on_an_architecture(path: Path) -> None:
    assert list(compared_names(own(path))) == []


def test_the_architecture_rule_sees_a_violation() -> None:
    tree = ast.parse("if kernel.arch.name == 'arm64': pass\nmatch a:\n    case 'x86': pass\nd['x86_64']\n")
    assert [found for _, found in compared_names(ast.walk(tree))] == ["arm64", "x86_64", "x86"]


FORBIDDEN_MODULES = {"threading", "multiprocessing", "concurrent", "asyncio", "secrets", "uuid4", "datetime"}
FORBIDDEN_CALLS = {
    ("time", "time"), ("time", "monotonic"), ("time", "perf_counter"), ("time", "sleep"), ("os", "urandom"),
    ("random", "random"), ("random", "randint"), ("random", "choice"), ("random", "shuffle"), ("random", "seed"),
    ("uuid", "uuid4"), ("uuid", "uuid1"),
}  # fmt: skip


@pytest.mark.parametrize("path", sources(*DETERMINISTIC, "arch", "plugins"), ids=name_of)
def test_a_seed_decides_everything(path: Path) -> None:
    for node in own(path):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & FORBIDDEN_MODULES, node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            harmless = node.module == "threading" and names == {"get_ident"}
            assert harmless or (node.module or "").split(".")[0] not in FORBIDDEN_MODULES, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in FORBIDDEN_CALLS, node.lineno
        elif isinstance(node, ast.For | ast.comprehension):
            over = node.iter
            assert not isinstance(over, ast.Set | ast.SetComp), f"{path}: iterates over a set"
            is_set = (
                isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id in ("set", "frozenset")
            )
            assert not is_set, f"{path}: iterates over a set"
        elif isinstance(node, ast.FunctionDef):
            assert node.name != "__del__", f"{path}:{node.lineno}"


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter"}


@pytest.mark.parametrize("path", sources("hvkernel", "arch", "plugins"), ids=name_of)
def test_no_module_level_mutable_state(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            value, targets = node.value, [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            value, targets = node.value, [node.target.id]
        else:
            assert not isinstance(node, ast.Global), path
            continue
        if targets == ["__all__"]:
            continue
        mutable = isinstance(value, MUTABLE) or (
            isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in MUTABLE_CALLS
        )
        assert not mutable, (
            f"{path}:{node.lineno}: {targets} is mutable; freeze it (tuple, frozenset, MappingProxyType)"
        )
    for inner in own(path):
        assert not isinstance(inner, ast.Global), f"{path}:{getattr(inner, 'lineno', 0)}: global"


@pytest.mark.parametrize("path", sources("hvkernel", "arch", "plugins"), ids=name_of)
def test_every_suppression_gives_its_reason(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for mark in ("# type: ignore", "# noqa", "# pragma: no cover"):
            if mark in line:
                rest = line.split(mark, 1)[1]
                reason = rest.split("#", 1)[1].strip() if "#" in rest else rest.partition("]")[2].strip(" -:")
                before = path.read_text().splitlines()[number - 2].strip() if number > 1 else ""
                assert reason or before.startswith("#"), f"{path}:{number}: {mark} without a reason"


LAZY = {
    "hvkernel/abi/__init__.py",
    "hvkernel/abi/catalog.py",
    "hvkernel/cli/__init__.py",
    "hvkernel/config/__init__.py",
}
"""Where modules of the same package are imported by name, on first use."""


def test_only_lazy_packages_import_by_name() -> None:
    # import-linter does not see importlib, so its use is confined to names inside one package.
    users = []
    for path in sources("hvkernel", "arch", "plugins"):
        for node in own(path):
            if isinstance(node, ast.Attribute) and node.attr == "import_module":
                users.append(name_of(path))
    assert set(users) <= LAZY
