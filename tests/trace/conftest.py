"""Traced boots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, Unsupported, compose

Traced = Callable[..., Session]


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Compose a guest whose run is recorded in the files given; options as of ``hvkernel boot``. Closed at the end."""
    live: list[Session] = []

    def make(*files: Path, **options: Any) -> Session:
        composed = compose(read_request(trace=files, **options))
        assert not isinstance(composed, Unsupported), composed
        live.append(composed)
        return composed

    yield make
    for session in reversed(live):
        session.close()
