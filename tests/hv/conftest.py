"""Shared by the tests of drivers/hv: rows computed by the real kernel, and a guest on the real modelled host."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, Unsupported, compose

Compose = Callable[..., Session]


@pytest.fixture(scope="session")
def rows() -> Callable[[str], Any]:
    """Load one table of tests/data/functions."""
    root = Path(__file__).parents[1] / "data" / "functions"
    return lambda name: json.loads((root / f"{name}.json").read_text("utf-8"))


@pytest.fixture
def guest() -> Iterator[Compose]:
    """Compose a guest with everything of Hyper-V built in; options as of ``hvkernel boot``. Closed at the end."""
    open_sessions: list[Session] = []

    def make(**options: Any) -> Session:
        composed = compose(read_request(**options))
        assert not isinstance(composed, Unsupported), composed
        open_sessions.append(composed)
        return composed

    yield make
    for session in reversed(open_sessions):
        session.close()
