"""The real configurations, and checks of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.plugins import Plugins, load
from hvkernel.check.run import Checked, CheckRequest, check

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return load()


@pytest.fixture
def real(tmp_path: Path) -> Callable[..., Path]:
    """A real configuration as a file, with lines added at its end."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / f"{name}.config"
        text = gzip.decompress((CONFIGS / f"{name}.config.gz").read_bytes()).decode()
        path.write_text(text + "".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def checked(plugins: Plugins) -> Callable[..., Checked]:
    """Check a file."""

    def run(path: Path, *targets: str, **more: Any) -> Checked:
        return check(CheckRequest(path, targets, **more), plugins)

    return run
