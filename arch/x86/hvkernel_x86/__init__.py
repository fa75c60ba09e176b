"""The x86 side of both halves: arch/x86/hyperv and what only an x86 host does."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Final

from hvkernel.api.hooks import ArchPlugin, DefaultHost, hookimpl

HVKERNEL_CONTRACT: Final = "1.0"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    """The architecture's own numbers and structs."""
    from hvkernel_x86 import tlfs, tlfs_cpuid, tlfs_nested, tlfs_structs

    return (tlfs, tlfs_cpuid, tlfs_nested, tlfs_structs)


@hookimpl
def hv_arch() -> ArchPlugin:
    """Bring the architecture: its guest and host halves, and the hosts that its guests boot on."""
    from hvkernel_x86.guest import make_guest
    from hvkernel_x86.host import HostX86

    return ArchPlugin(
        name="x86",
        abi="x86_64",
        bits=(64, 32),
        page_sizes=(4096,),
        default_hosts=(DefaultHost("azure-gen2", 2, ("64BIT", "EFI")), DefaultHost("ws2022", 1)),
        guest=make_guest,
        host=HostX86,
    )
