"""A third-party plugin with sub-channels: a device that computes on what its driver sends in every possible way."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from hvkernel.api.hooks import hookimpl

if TYPE_CHECKING:
    from hvkernel.api.guest import Kernel
    from hvkernel.api.host import DeviceRegistry
    from hvkernel.api.matrix import Drive

HVKERNEL_CONTRACT = "1.2"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    from hvkernel_loom import wire

    return (wire,)


@hookimpl
def hv_kconfig(release: str) -> str:
    return "config HYPERV_LOOM\n\ttristate\n\tdepends on HYPERV\n\tdefault HYPERV\n"


@hookimpl
def hv_register_drivers(kernel: Kernel) -> None:
    from hvkernel_loom import vsc

    kernel.register_object(vsc.LoomDriver().kernel_object())


@hookimpl
def hv_register_devices(registry: DeviceRegistry) -> None:
    from hvkernel_loom import vsp
    from hvkernel_loom.wire import CLASS

    registry.register(CLASS, vsp.LoomDevice, owner="hv_loom")


@hookimpl
def hv_matrix_drives() -> Sequence[Drive]:
    from hvkernel_loom.drive import DRIVES

    return DRIVES
