"""Cells, run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.axes import built_in_axes
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import Cell

MODULES = {"MODULES": "y", "BLK_DEV_INITRD": "y"}
"""What a kernel with modules needs besides what is built when no .config is given."""

SYMBOLS = ("HYPERV", "HYPERV_STORAGE", "SCSI", "BLK_DEV_SD")


def runner_of(plugins: Any = None, sample: int = 0, **changes: Any) -> CellRunner:
    axes = {name: axis.values for name, axis in built_in_axes().items()}
    given: Mapping[str, Any] = {
        "axes": {**axes, "disk_size": ("64M", "3T")},
        "config": MODULES,
        "symbols": dict.fromkeys(SYMBOLS, ("y", "m", "n")),
        **changes,
    }
    return CellRunner(MatrixSpec.model_validate(given), plugins, sample=sample)


def cell_of(runner: CellRunner, text: str, seed: int = 0) -> Cell:
    given = dict(part.split("=") for part in text.split(",")) if text else {}
    unknown = given.keys() - runner.spec.varied.keys()
    assert not unknown, unknown
    return Cell(0, tuple((name, given[name]) for name in runner.spec.varied if name in given), seed)


@pytest.fixture(scope="module")
def runner() -> CellRunner:
    return runner_of()


@pytest.fixture(scope="module")
def run(runner: CellRunner) -> Callable[..., Any]:
    """Return a function that runs a cell: ``run("arch=x86,cpus=2", seed=1)``."""
    return lambda text="", seed=0: runner.run(cell_of(runner, text, seed))


@pytest.fixture(scope="module")
def make_runner() -> Callable[..., CellRunner]:
    """Return :func:`runner_of`."""
    return runner_of


@pytest.fixture(scope="module")
def make_cell() -> Callable[..., Cell]:
    """Return :func:`cell_of`."""
    return cell_of
