"""What tests of all parts share: programs of the system, and a user who may not read everything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Return a function that finds a program; where it is missing the test is skipped, but fails in CI."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            message = f"{name} is not installed (Debian package {package})"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return found

    return find


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test as nobody when it would run as root, to whom every file is open."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
