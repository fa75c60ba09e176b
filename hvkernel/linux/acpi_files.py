"""The files of ACPI devices in sysfs. Source: drivers/acpi/device_sysfs.c:acpi_device_setup_files.

Not here: what needs a method to be run or a table of power states (``description``, ``sun``, ``hrv``, ``eject``,
``power_state``), and links to the devices of other buses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.sysfs import Attribute, AttributeGroup

if TYPE_CHECKING:
    from hvkernel.linux.acpi import AcpiDevice


def _object(dev: AcpiDevice, name: str) -> object:
    return dev.node_object.objects.get(name) if dev.node_object is not None else None


def path_show(dev: AcpiDevice) -> str:
    """Its path in the namespace, every part filled up to four characters."""
    parts = dev.path.removeprefix("\\").split(".")
    return "\\" + ".".join(part.ljust(4, "_") for part in parts if part) + "\n"


def hid_show(dev: AcpiDevice) -> str:
    """Hardware id."""
    return f"{dev.hid}\n"


def modalias_show(dev: AcpiDevice) -> str:
    """``acpi:`` and its ids; what user space finds a driver's module by. Empty for an absent device."""
    return "acpi:" + "".join(f"{one}:" for one in (dev.hid, *dev.cids) if one) + "\n" if dev.present else ""


def adr_show(dev: AcpiDevice) -> str:
    """Address on its parent's bus."""
    return f"0x{_object(dev, '_ADR'):08x}\n"


def uid_show(dev: AcpiDevice) -> str:
    """Unique id among devices with the same hardware id."""
    return f"{_object(dev, '_UID')}\n"


def status_show(dev: AcpiDevice) -> str:
    """What _STA says: 15 is present, enabled, shown and working, 0 is absent."""
    return f"{_object(dev, '_STA')}\n"


def _row(name: str, form: str, show: Callable[[AcpiDevice], str]) -> Attribute:
    return Attribute(name, 0o444, show, None, form, f"drivers/acpi/device_sysfs.c:{name}_show")


ACPI_FILES: Final = (
    _row("path", "%s", path_show),
    _row("hid", "%s", hid_show),
    _row("modalias", "acpi:%s:", modalias_show),
    _row("adr", "0x%08llx", adr_show),
    _row("uid", "%s", uid_show),
    _row("status", "%llu", status_show),
)
"""/sys/bus/acpi/devices/<device>/."""


def is_visible(dev: AcpiDevice, attr: Attribute) -> int:
    """Hide what the namespace does not give the device."""
    needed = {"adr": "_ADR", "uid": "_UID", "status": "_STA"}.get(attr.name)
    if needed is not None:
        value = _object(dev, needed)
        return attr.mode if isinstance(value, int | str) and (isinstance(value, int) or needed == "_UID") else 0
    if attr.name == "path":
        return attr.mode if dev.node_object is not None else 0
    return attr.mode if dev.hid or dev.cids else 0


ACPI_GROUPS: Final = (AttributeGroup(ACPI_FILES, is_visible),)

__all__ = ["ACPI_FILES", "ACPI_GROUPS"]
