"""Numbers and wire structs of the guest/host interface, each with its source, without behaviour.

One module per protocol, named for the kernel header it mirrors. Importing this package imports none
of them; ask for what is needed, e.g. ``from hvkernel.abi import vmbus``.

Everything is little-endian, and the same for 32-bit guests as for 64-bit ones. What differs by architecture is in the
architecture's own modules; what differs by the guest's page size is a function of it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

MODULES: Final[tuple[str, ...]] = (
    "hvkernel.abi.acpi",
    "hvkernel.abi.guids",
    "hvkernel.abi.ic",
    "hvkernel.abi.monitor",
    "hvkernel.abi.ring",
    "hvkernel.abi.smbios",
    "hvkernel.abi.tlfs_codes",
    "hvkernel.abi.tlfs_device",
    "hvkernel.abi.tlfs_features",
    "hvkernel.abi.tlfs_hypercall",
    "hvkernel.abi.tlfs_synic",
    "hvkernel.abi.vmbus",
    "hvkernel.abi.vmbus_messages",
)
"""Import paths of the architecture-neutral modules that define something, in name order.

`hvkernel.abi.tlfs` is not among them: it only gathers the ``tlfs_*`` modules.
"""


def core_modules() -> tuple[ModuleType, ...]:
    """Import and return every module of `MODULES`."""
    return tuple(importlib.import_module(name) for name in MODULES)
