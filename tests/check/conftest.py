"""The real configurations, and checks of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.plugins import Plugins, load
from hvkernel.check import Configuration
from hvkernel.check.run import Checked, CheckRequest, check
from hvkernel.kconfig import ConfigFile, KconfigTrees, parse_config

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return load()


@pytest.fixture(scope="session")
def configuration(plugins: Plugins) -> Callable[..., Configuration]:
    """Make a configuration of a text or of a parsed file; Kconfig is read once for the whole run."""
    trees = KconfigTrees()

    def texts(release: str) -> dict[str, str]:
        return {f"{info.name}/Kconfig": text for info, text in plugins.call("hv_kconfig", release=release)}

    def make(given: str | ConfigFile, *, name: str = "<config>", **more: Any) -> Configuration:
        file = parse_config(given, name=name) if isinstance(given, str) else given
        return Configuration(file, plugin_kconfigs=texts, trees=trees, **more)

    return make


@pytest.fixture(scope="session")
def real_text() -> Callable[[str], str]:
    """The text of a real configuration."""

    def read(name: str) -> str:
        return gzip.decompress((CONFIGS / f"{name}.config.gz").read_bytes()).decode()

    return read


@pytest.fixture
def real(tmp_path: Path, real_text: Callable[[str], str]) -> Callable[..., Path]:
    """A real configuration as a file, with lines added at its end."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / f"{name}.config"
        path.write_text(real_text(name) + "".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def checked(plugins: Plugins) -> Callable[..., Checked]:
    """Check a file."""

    def run(path: Path, *targets: str, **more: Any) -> Checked:
        return check(CheckRequest(path, targets, **more), plugins)

    return run
