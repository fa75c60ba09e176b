"""What a user writes, checked at the edge: VM files and host profiles. The only place that knows pydantic.

Names are resolved on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hvkernel.config.errors import InputError

if TYPE_CHECKING:
    from hvkernel.config.devices import VmDevice, vm_devices
    from hvkernel.config.profile import (
        DEVICE_CLASSES,
        Device,
        DeviceClass,
        HostProfile,
        load_profile,
        profile_names,
    )
    from hvkernel.config.vm import Disk, NumaNode, VmConfig, load_vm

__all__ = [
    "DEVICE_CLASSES",
    "Device",
    "DeviceClass",
    "Disk",
    "HostProfile",
    "InputError",
    "NumaNode",
    "VmConfig",
    "VmDevice",
    "load_profile",
    "load_vm",
    "profile_names",
    "vm_devices",
]

_PROFILE: Final = ("Device", "DeviceClass", "HostProfile", "DEVICE_CLASSES", "load_profile", "profile_names")
_DEVICES: Final = ("VmDevice", "vm_devices")
_VM: Final = ("Disk", "NumaNode", "VmConfig", "load_vm")


def __getattr__(name: str) -> Any:
    if name in _PROFILE:
        from hvkernel.config import profile

        return getattr(profile, name)
    if name in _DEVICES:
        from hvkernel.config import devices

        return getattr(devices, name)
    if name in _VM:
        from hvkernel.config import vm

        return getattr(vm, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
