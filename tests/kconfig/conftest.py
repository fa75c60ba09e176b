"""Fixtures: the real configs and the in-tree plugins' Kconfig texts."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.kconfig import Build, evaluate, plugin_kconfig

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "tests" / "data" / "configs"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """tests/data."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def config_text() -> Callable[[str], str]:
    """Read one of the real configs by name, without ``.config``."""

    def read(name: str) -> str:
        return gzip.decompress((CONFIGS / f"{name}.config.gz").read_bytes()).decode()

    return read


@pytest.fixture(scope="session")
def storvsc_kconfig() -> Callable[[str], dict[str, str]]:
    """The storage plugin's Kconfig text for a release, as ``plugin_kconfigs`` takes it."""
    directory = ROOT / "plugins" / "hvkernel_storvsc"
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(directory.glob("Kconfig*"))}

    def pick(release: str) -> dict[str, str]:
        found = plugin_kconfig(texts, release)
        assert found is not None
        return {f"hvkernel_storvsc/{found[0]}": found[1]}

    return pick


@pytest.fixture(scope="session")
def build_of(
    config_text: Callable[[str], str], storvsc_kconfig: Callable[[str], dict[str, str]]
) -> Callable[..., Build]:
    """Evaluate a real config by name, or any text, with the storage plugin's Kconfig."""

    def build(name_or_text: str, *, release: str | None = None, **more: object) -> Build:
        text = name_or_text if "\n" in name_or_text else config_text(name_or_text)
        first = evaluate(text, release=release, **more)  # type: ignore[arg-type]
        plugins = storvsc_kconfig(first.release)
        return evaluate(text, release=release, plugin_kconfigs=plugins, **more)  # type: ignore[arg-type]

    return build
