"""Real configurations, and boots of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.config import VmConfig
from hvkernel.config.report import BootReport

DATA = Path(__file__).parents[1] / "data"

Config = Callable[[str], str]
Open = Callable[..., Session]


@pytest.fixture(scope="session")
def config() -> Config:
    """Return the text of a real ``.config`` by its name."""

    def read(name: str) -> str:
        return gzip.decompress((DATA / "configs" / f"{name}.config.gz").read_bytes()).decode()

    return read


def request(text: str, vm: dict[str, Any] | None = None, **more: Any) -> BootRequest:
    return BootRequest(config=text, vm=VmConfig.model_validate(vm or {}), **more)


@pytest.fixture
def start(config: Config) -> Any:
    """Return a function that boots a real config and gives the live session; all are closed at the end."""
    live: list[Session] = []

    def make(name: str, vm: dict[str, Any] | None = None, *, vps: Any = None, **more: Any) -> Session:
        composed = compose(request(config(name), vm, **more), vps=vps)
        assert not isinstance(composed, Unsupported), composed.report.reason
        live.append(composed)
        composed.boot()
        return composed

    yield make
    for session in live:
        session.close()


def lines(report: BootReport) -> list[str]:
    return [line.text for line in report.dmesg]
