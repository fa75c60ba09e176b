"""The x86 side of both halves: arch/x86/hyperv and what only an x86 host does."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Final

from hvkernel.api.hooks import hookimpl

HVKERNEL_CONTRACT: Final = "1.0"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    """The architecture's own numbers and structs."""
    from hvkernel_x86 import tlfs, tlfs_cpuid, tlfs_nested, tlfs_structs

    return (tlfs, tlfs_cpuid, tlfs_nested, tlfs_structs)
