"""device.h, device/bus.h, device/driver.h, notifier.h, acpi.h, ioport.h: the driver core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

from .sysfs import AttributeGroup, Kobject


class ProbeType(IntEnum):
    """enum probe_type. Source: include/linux/device/driver.h."""

    PROBE_DEFAULT_STRATEGY = 0
    PROBE_PREFER_ASYNCHRONOUS = 1
    PROBE_FORCE_SYNCHRONOUS = 2


@dataclass(frozen=True, slots=True)
class DevPmOps:
    """struct dev_pm_ops as far as hibernation goes: each takes the device and returns 0 or a negative errno."""

    freeze_noirq: Callable[[Any], int] | None = None
    thaw_noirq: Callable[[Any], int] | None = None
    poweroff_noirq: Callable[[Any], int] | None = None
    restore_noirq: Callable[[Any], int] | None = None


class BusType:
    """struct bus_type. Callbacks take the :class:`Device` (and :class:`DeviceDriver`); unset ones are None."""

    __slots__ = (
        "bus_groups",
        "dev_groups",
        "dev_kobjects",
        "devices",
        "drivers",
        "drivers_autoprobe",
        "drv_groups",
        "match",
        "name",
        "pm",
        "probe",
        "remove",
        "shutdown",
        "uevent",
    )

    def __init__(
        self,
        name: str,
        *,
        match: Callable[[Any, Any], bool | int] | None = None,
        probe: Callable[[Any], int] | None = None,
        remove: Callable[[Any], None] | None = None,
        shutdown: Callable[[Any], None] | None = None,
        uevent: Callable[[Any, dict[str, str]], int] | None = None,
        bus_groups: Sequence[AttributeGroup] = (),
        dev_groups: Sequence[AttributeGroup] = (),
        drv_groups: Sequence[AttributeGroup] = (),
        dev_kobjects: Callable[[Any], Sequence[Kobject]] | None = None,
        pm: DevPmOps | None = None,
    ) -> None:
        self.name = name
        self.match = match
        self.probe = probe
        self.remove = remove
        self.shutdown = shutdown
        self.uevent = uevent
        """Adds its variables (``MODALIAS``) to the environment; non-zero drops the event."""
        self.bus_groups = tuple(bus_groups)
        """Attributes of the bus itself; their object is the :class:`BusType`."""
        self.dev_groups = tuple(dev_groups)
        """Attributes of every device on it."""
        self.drv_groups = tuple(drv_groups)
        """Attributes of every driver on it."""
        self.dev_kobjects = dev_kobjects
        """The directories that a device of this bus has below its own, as of now."""
        self.drivers_autoprobe = True
        """Bind new devices and drivers by themselves; ``/sys/bus/<bus>/drivers_autoprobe``."""
        self.pm = pm
        self.devices: list[Device] = []
        self.drivers: list[DeviceDriver] = []


class Device:
    """struct device. Subclass it for a bus's own device (``hv_device``)."""

    def __init__(
        self,
        name: str,
        *,
        bus: BusType | None = None,
        parent: Device | None = None,
        release: Callable[[Any], None] | None = None,
        node: int = -1,
    ) -> None:
        self.name = name
        """dev_name()."""
        self.bus = bus
        self.parent = parent
        self.driver: DeviceDriver | None = None
        self.driver_data: Any = None
        """dev_set_drvdata()/dev_get_drvdata()."""
        self.release = release
        self.node = node
        self.registered = False
        self.dead = False
        self.deferred = False
        """True while its probe has asked to be tried again (-EPROBE_DEFER)."""
        self.probe_error = 0
        """The last negative errno its probe returned, for the report."""
        self.lock: Any = None
        self.groups: tuple[AttributeGroup, ...] = ()
        """Attributes of this device alone."""


class DeviceDriver:
    """struct device_driver. Subclass it for a bus's own driver (``hv_driver``)."""

    def __init__(
        self,
        name: str,
        *,
        bus: BusType | None = None,
        owner: str | None = None,
        probe_type: ProbeType = ProbeType.PROBE_DEFAULT_STRATEGY,
    ) -> None:
        self.name = name
        self.bus = bus
        self.owner = owner
        """Module name of the object it came from; filled in at registration when None."""
        self.probe_type = probe_type
        self.pm: DevPmOps | None = None
        """Used where the bus has no callback of its own."""
        self.devices: list[Device] = []
        """Bound devices, in the order of binding."""


class DriverCore(Protocol):
    """``kernel.driver``."""

    def bus_register(self, bus: BusType) -> int: ...
    def bus_unregister(self, bus: BusType) -> None: ...
    def device_register(self, dev: Device) -> int:
        """Add to its bus, send the ``add`` uevent, try to bind a driver."""
        ...

    def device_unregister(self, dev: Device) -> None: ...
    def duplicate(self, path: str, name: str) -> None:
        """Print what sysfs and kobject say of a second directory of that name (-EEXIST)."""
        ...

    def driver_register(self, drv: DeviceDriver) -> int:
        """Add to its bus and try every unbound device (in another task when the driver prefers that)."""
        ...

    def driver_unregister(self, drv: DeviceDriver) -> None: ...
    def device_release_driver(self, dev: Device) -> None: ...
    def device_driver_attach(self, drv: DeviceDriver, dev: Device) -> int: ...
    def driver_attach(self, drv: DeviceDriver) -> int: ...
    def driver_set_override(self, dev: Device, override: Callable[[str | None], None], s: bytes) -> int:
        """Take a write to ``driver_override``: 0, or -EINVAL when it is a page long.

        :param override: called with the new name, ``None`` for no override, with the device locked.
        """
        ...

    def bus_for_each_dev(self, bus: BusType) -> Iterator[Device]: ...
    def dev_path(self, dev: Device) -> str:
        """Its path below /sys, as ``devices/LNXSYSTM:00/…``."""
        ...

    def kobject_uevent(self, dev: Device, action: str) -> None: ...


class NotifierBlock:
    """struct notifier_block. ``call(action, data)`` returns a NOTIFY_* value (None is NOTIFY_DONE)."""

    __slots__ = ("call", "priority")

    def __init__(self, call: Callable[[int, Any], int | None], priority: int = 0) -> None:
        self.call = call
        self.priority = priority


NOTIFY_DONE = 0x0000
NOTIFY_OK = 0x0001
NOTIFY_STOP_MASK = 0x8000
NOTIFY_BAD = NOTIFY_STOP_MASK | 0x0002
NOTIFY_STOP = NOTIFY_OK | NOTIFY_STOP_MASK
"""Source of the five: include/linux/notifier.h."""


class NotifierChain(Protocol):
    """A chain: highest priority first, equal ones in the order of registration."""

    def register(self, nb: NotifierBlock) -> int: ...
    def unregister(self, nb: NotifierBlock) -> int: ...
    def call_chain(self, action: int, data: Any = None) -> int: ...


class Notifiers(Protocol):
    """``kernel.notifier``."""

    @property
    def panic_notifier_list(self) -> NotifierChain: ...
    @property
    def die_chain(self) -> NotifierChain: ...
    @property
    def reboot_notifier_list(self) -> NotifierChain: ...
    @property
    def memory_chain(self) -> NotifierChain: ...
    def chain(self, name: str) -> NotifierChain:
        """A new chain of the caller's own."""
        ...


IORESOURCE_MEM: Final = 0x200
IORESOURCE_BUSY: Final = 0x8000_0000
"""Flags of a resource. Source: include/linux/ioport.h."""
KMSG_DUMP_PANIC: Final = 1
"""Why the log is dumped. Source: include/linux/kmsg_dump.h."""
DIE_OOPS: Final = 1
"""What a die notifier is told. Source: arch/x86/include/asm/kdebug.h, arch/arm64/include/asm/kdebug.h."""


class Resource:
    """struct resource: ``start`` to ``end`` inclusive, bytes."""

    __slots__ = ("children", "end", "flags", "name", "parent", "start")

    def __init__(self, start: int, end: int, name: str = "", flags: int = IORESOURCE_MEM) -> None:
        self.start = start
        self.end = end
        self.name = name
        self.flags = flags
        self.parent: Resource | None = None
        self.children: list[Resource] = []

    def __repr__(self) -> str:
        return f"Resource({self.start:#x}-{self.end:#x} {self.name!r})"


class AcpiDevice(Protocol):
    """A device object of the ACPI namespace."""

    @property
    def path(self) -> str:
        """As ``\\_SB.VMOD.VMBS``."""
        ...

    @property
    def hid(self) -> str | None: ...
    @property
    def cids(self) -> Sequence[str]: ...
    @property
    def parent(self) -> AcpiDevice | None: ...
    @property
    def crs(self) -> Sequence[Resource]:
        """The address windows of _CRS (memory; 32 and 64 bit). A device's own registers are not among them."""
        ...

    @property
    def crs_irqs(self) -> Sequence[int]:
        """The first interrupt of each extended descriptor of _CRS (GSIs); short ones are the old PIC's."""
        ...

    @property
    def cca(self) -> int | None:
        """Integer value of _CCA, where there is one."""
        ...


class Acpi(Protocol):
    """``kernel.acpi``."""

    @property
    def available(self) -> bool: ...
    def get_table(self, signature: str) -> bytes | None:
        """The whole table, header included, as found in guest memory."""
        ...

    def devices(self) -> Sequence[AcpiDevice]: ...
    def acpi_bus_register_driver(self, drv: AcpiDriver) -> int:
        """Bind it to every namespace device whose _HID or _CID it names; 0 or a negative errno."""
        ...

    def acpi_bus_unregister_driver(self, drv: AcpiDriver) -> None: ...
    def acpi_sleep_state_supported(self, sleep_state: int) -> bool:
        """Whether the firmware offers a sleep state; 4 is hibernation."""
        ...


class AcpiDriver:
    """struct acpi_driver: ``add(acpi_device) -> errno``."""

    __slots__ = ("add", "ids", "name", "pm", "remove")

    def __init__(
        self,
        name: str,
        ids: tuple[str, ...],
        add: Callable[[AcpiDevice], int],
        remove: Callable[[AcpiDevice], None] | None = None,
        pm: DevPmOps | None = None,
    ) -> None:
        self.name = name
        self.ids = ids
        self.add = add
        self.remove = remove
        self.pm = pm


class IoResources(Protocol):
    """``kernel.ioport``: the iomem tree."""

    @property
    def iomem_resource(self) -> Resource: ...
    def request_region(self, parent: Resource, start: int, size: int, name: str) -> Resource | None:
        """A busy child, or None when it overlaps one (__request_region)."""
        ...

    def release_region(self, parent: Resource, start: int, size: int) -> None: ...


__all__ = [
    "DIE_OOPS",
    "IORESOURCE_BUSY",
    "IORESOURCE_MEM",
    "KMSG_DUMP_PANIC",
    "NOTIFY_BAD",
    "NOTIFY_DONE",
    "NOTIFY_OK",
    "NOTIFY_STOP",
    "NOTIFY_STOP_MASK",
    "Acpi",
    "AcpiDevice",
    "AcpiDriver",
    "BusType",
    "DevPmOps",
    "Device",
    "DeviceDriver",
    "DriverCore",
    "IoResources",
    "NotifierBlock",
    "NotifierChain",
    "Notifiers",
    "ProbeType",
    "Resource",
]
