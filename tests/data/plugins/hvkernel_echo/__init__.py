"""A third-party plugin: a driver that sends one packet to its device and prints what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from hvkernel.api.hooks import hookimpl

if TYPE_CHECKING:
    from hvkernel.api.guest import Kernel
    from hvkernel.api.host import DeviceRegistry

HVKERNEL_CONTRACT = "1.0"


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    from hvkernel_echo import wire

    return (wire,)


@hookimpl
def hv_kconfig(release: str) -> str:
    return "config HYPERV_ECHO\n\ttristate\n\tdepends on HYPERV\n\tdefault HYPERV\n"


@hookimpl
def hv_register_drivers(kernel: Kernel) -> None:
    from hvkernel_echo import vsc

    kernel.register_object(vsc.EchoDriver().kernel_object())


@hookimpl
def hv_register_devices(registry: DeviceRegistry) -> None:
    from hvkernel_echo import vsp
    from hvkernel_echo.wire import CLASS

    registry.register(CLASS, vsp.EchoDevice, owner="hv_echo")
