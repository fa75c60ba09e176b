"""The arm64 side of both halves: arch/arm64/hyperv and what only an arm64 host does."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Final

from hvkernel.api.hooks import hookimpl

HVKERNEL_CONTRACT: Final = "1.0"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    """The architecture's own numbers and structs."""
    from hvkernel_arm64 import tlfs

    return (tlfs,)
