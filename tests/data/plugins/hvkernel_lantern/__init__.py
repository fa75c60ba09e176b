"""A third-party plugin: a driver that shares a buffer with its device. Tests break it, see ``vsc.py``."""

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
    from hvkernel_lantern import wire

    return (wire,)


@hookimpl
def hv_kconfig(release: str) -> str:
    return 'config HYPERV_LANTERN\n\ttristate "Lantern"\n\tdepends on HYPERV\n\tdefault HYPERV\n'


@hookimpl
def hv_register_drivers(kernel: Kernel) -> None:
    from hvkernel_lantern import vsc

    kernel.register_object(vsc.LanternDriver().kernel_object())


@hookimpl
def hv_register_devices(registry: DeviceRegistry) -> None:
    from hvkernel_lantern import vsp
    from hvkernel_lantern.wire import CLASS

    registry.register(CLASS, vsp.LanternDevice, owner="hv_lantern")


@hookimpl
def hv_matrix_drives() -> Sequence[Drive]:
    from hvkernel_lantern.drive import DRIVES

    return DRIVES
