"""What a user writes, checked at the edge: VM files and host profiles. The only place that knows pydantic.

Names are resolved on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.config.errors import InputError

if TYPE_CHECKING:
    from hvkernel.config.profile import (
        Device,
        DeviceClass,
        HostProfile,
        device_classes,
        load_profile,
        profile_names,
    )
    from hvkernel.config.vm import Disk, NumaNode, VmConfig, load_vm, resolve

__all__ = [
    "Device",
    "DeviceClass",
    "Disk",
    "HostProfile",
    "InputError",
    "NumaNode",
    "VmConfig",
    "device_classes",
    "load_profile",
    "load_vm",
    "profile_names",
    "resolve",
]

_HOMES: Final = MappingProxyType(
    {
        "Device": "profile",
        "DeviceClass": "profile",
        "HostProfile": "profile",
        "device_classes": "profile",
        "load_profile": "profile",
        "profile_names": "profile",
        "Disk": "vm",
        "NumaNode": "vm",
        "VmConfig": "vm",
        "load_vm": "vm",
        "resolve": "vm",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"hvkernel.config.{_HOMES[name]}"), name)
