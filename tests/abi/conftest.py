"""Ground truth from the compiled kernel, and what the modules under test declare."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from hvkernel.abi import core_modules
from hvkernel.abi.catalog import Catalog, collect

DATA: Final = Path(__file__).parents[1] / "data" / "abi"
ARCH_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "x86_64": tuple(f"hvkernel_x86.{name}" for name in ("tlfs", "tlfs_cpuid", "tlfs_nested", "tlfs_structs")),
    "arm64": ("hvkernel_arm64.tlfs",),
}
PLUGIN_MODULES: Final = ("hvkernel_storvsc.wire",)


def modules_of(arch: str) -> tuple[ModuleType, ...]:
    """The core's, the in-tree plugins' and one architecture's wire modules."""
    return core_modules() + tuple(importlib.import_module(name) for name in (*PLUGIN_MODULES, *ARCH_MODULES[arch]))


@pytest.fixture(scope="session")
def truth() -> Mapping[str, Any]:
    """Every ground-truth file by its stem."""
    return {path.stem: json.loads(path.read_text()) for path in DATA.glob("*.json")}


@pytest.fixture(scope="session", params=sorted(ARCH_MODULES))
def arch(request: pytest.FixtureRequest) -> str:
    """One architecture after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def declared(arch: str) -> Catalog:
    """What is declared for that architecture."""
    return collect(modules_of(arch))


@pytest.fixture(scope="session")
def all_modules() -> tuple[ModuleType, ...]:
    """Every wire module of the repository, once."""
    return tuple(dict.fromkeys(module for arch in ARCH_MODULES for module in modules_of(arch)))
