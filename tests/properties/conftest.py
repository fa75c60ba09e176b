"""The harness of the interleavings is a package beside this file, so that ``fuzz.py`` runs it too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from interleavings import Result

    from hvkernel.boot.plugins import Plugins


@pytest.fixture(scope="session")
def interleave(loom_plugins: Plugins) -> Iterator[Callable[[int], Result]]:
    """Return a function that does the run of one seed."""
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    from interleavings import make_plan, run_plan

    yield lambda seed: run_plan(make_plan(seed), loom_plugins)
    sys.path.remove(here)
