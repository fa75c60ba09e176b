"""The arm64 side of both halves: arch/arm64/hyperv and what only an arm64 host does."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Final

from hvkernel.api.hooks import ArchPlugin, DefaultHost, hookimpl

HVKERNEL_CONTRACT: Final = "1.0"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    """The architecture's own numbers and structs."""
    from hvkernel_arm64 import tlfs

    return (tlfs,)


@hookimpl
def hv_arch() -> ArchPlugin:
    """Bring the architecture: its guest and host halves, and the hosts that its guests boot on."""
    from hvkernel_arm64.guest import make_guest
    from hvkernel_arm64.host import HostArm64

    return ArchPlugin(
        name="arm64",
        abi="arm64",
        bits=(64,),
        page_sizes=(4096, 16384, 65536),
        default_hosts=(DefaultHost("azure-arm64", 2),),
        guest=make_guest,
        host=HostArm64,
    )
