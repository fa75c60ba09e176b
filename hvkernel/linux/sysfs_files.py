"""The files that the driver core gives every bus, driver, device and module.

Source: drivers/base/bus.c, core.c, kernel/module/main.c, kernel/params.c and lib/kobject_uevent.c of 6.1. Functions
take the kernel first, then the object whose file it is; a show returns text or a negative errno, a store 0 or one.

Not here: ``power/``, ``waiting_for_supplier``, links between suppliers and consumers; of a module, what is only known
of a compiled one (``coresize``, ``sections/``, ``notes/``, ``srcversion``, ``taint``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.device import BusType, Device, DeviceDriver
from hvkernel.api.guest.errno import EINVAL, ENODEV
from hvkernel.api.guest.sysfs import Attribute

if TYPE_CHECKING:
    from hvkernel.api.guest.kernel import KernelObject
    from hvkernel.linux.kernel import Kernel
    from hvkernel.linux.module import Module

KOBJECT_ACTIONS: Final = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")
"""Source: lib/kobject_uevent.c:kobject_actions."""
UUID: Final = re.compile("-".join(f"[0-9a-fA-F]{{{n}}}" for n in (8, 4, 4, 4, 12)))
ARGUMENT: Final = re.compile("([0-9a-zA-Z]+)=([0-9a-zA-Z]*)")


def written_name(buf: bytes) -> str:
    """Return what a write names: the text up to a NUL, without one newline at its end.

    Source: lib/string_helpers.c:sysfs_streq.
    """
    return buf.partition(b"\0")[0].removesuffix(b"\n").decode("utf-8", "surrogateescape")


def synthetic_uevent(buf: bytes) -> tuple[str, dict[str, str]] | str:
    """Return the action and the added variables of a write to ``uevent``, or what is wrong with it.

    ``ACTION [UUID [KEY=VALUE ...]]``, keys and values of letters and digits.
    Source: lib/kobject_uevent.c:kobject_synth_uevent, kobject_action_type, kobject_action_args.
    """
    text = (buf[:-1] if buf[-1:] in (b"\n", b"\0") else buf).decode("latin-1")
    action, space, arguments = text.partition(" ")
    if action not in KOBJECT_ACTIONS:
        return "unknown uevent action string"
    if not space:
        return action, {"SYNTH_UUID": "0"}
    uuid, *pairs = arguments.split(" ")
    if UUID.fullmatch(uuid) is None:
        return "incorrect uevent action arguments"
    extra = {"SYNTH_UUID": uuid}
    for pair in pairs:
        found = ARGUMENT.fullmatch(pair)
        if found is None or not found[2]:
            return "incorrect uevent action arguments"
        extra[f"SYNTH_ARG_{found[1]}"] = found[2]
    return action, extra


def _refused(kernel: Kernel, path: str, why: str) -> int:
    kernel.printk.pr_warn(f"synth uevent: /{path}: {why}")
    return -EINVAL


def _silent_uevent(kernel: Kernel, path: str, buf: bytes) -> int:
    """The events of a bus, a driver or a module: nobody in the model listens to them."""
    event = synthetic_uevent(buf)
    return _refused(kernel, path, event) if isinstance(event, str) else 0


# buses ---------------------------------------------------------------------------------------------------------


def _device_named(kernel: Kernel, bus: BusType, buf: bytes) -> Device | None:
    """bus_find_device_by_name()."""
    name = written_name(buf)
    return next((dev for dev in kernel.driver.bus_for_each_dev(bus) if device_entry(dev) == name), None)


def device_entry(dev: Device) -> str:
    """Return dev_name(): the last part of names that carry a directory (``target0:0:0/0:0:0:0``)."""
    return dev.name.rsplit("/", 1)[-1]


def bus_uevent_store(kernel: Kernel, bus: BusType, buf: bytes) -> int:
    """Send an event of the bus itself."""
    return _silent_uevent(kernel, f"bus/{bus.name}", buf)


def drivers_autoprobe_show(kernel: Kernel, bus: BusType) -> str:
    """Whether new devices and drivers are bound by themselves."""
    return f"{int(bus.drivers_autoprobe)}\n"


def drivers_autoprobe_store(kernel: Kernel, bus: BusType, buf: bytes) -> int:
    """Off for anything that begins with ``0``, on for anything else."""
    bus.drivers_autoprobe = buf[:1] != b"0"
    return 0


def drivers_probe_store(kernel: Kernel, bus: BusType, buf: bytes) -> int:
    """Look for a driver of the named device, unless it has one; -ENODEV when there is no such device."""
    dev = _device_named(kernel, bus, buf)
    if dev is None:
        return -ENODEV
    kernel.driver.device_attach(dev)
    return 0


# drivers -------------------------------------------------------------------------------------------------------


def driver_uevent_store(kernel: Kernel, drv: DeviceDriver, buf: bytes) -> int:
    """Send an event of the driver itself."""
    bus = drv.bus.name if drv.bus is not None else ""
    return _silent_uevent(kernel, f"bus/{bus}/drivers/{drv.name}", buf)


def bind_store(kernel: Kernel, drv: DeviceDriver, buf: bytes) -> int:
    """Bind the named device, which must fit the driver; -ENODEV if it does not, -EBUSY if it has a driver, else the
    probe's errno."""
    dev = _device_named(kernel, drv.bus, buf) if drv.bus is not None else None
    if dev is None or not kernel.driver.driver_match_device(drv, dev):
        return -ENODEV
    return kernel.driver.device_driver_attach(drv, dev)


def unbind_store(kernel: Kernel, drv: DeviceDriver, buf: bytes) -> int:
    """Take the named device from the driver; -ENODEV if it is not bound to it."""
    dev = _device_named(kernel, drv.bus, buf) if drv.bus is not None else None
    if dev is None or dev.driver is not drv:
        return -ENODEV
    kernel.driver.device_release_driver(dev)
    return 0


# devices -------------------------------------------------------------------------------------------------------


def uevent_show(kernel: Kernel, dev: Device) -> str:
    """The variables of the device's events that do not depend on the event."""
    env: dict[str, str] = {}
    if dev.bus is None:
        return ""
    if dev.driver is not None:
        env["DRIVER"] = dev.driver.name
    if dev.bus.uevent is not None and dev.bus.uevent(dev, env):
        return ""
    return "".join(f"{key}={value}\n" for key, value in env.items())


def uevent_store(kernel: Kernel, dev: Device, buf: bytes) -> int:
    """Send an event that user space has made up; -EINVAL for an unknown action or bad arguments."""
    event = synthetic_uevent(buf)
    if isinstance(event, str):
        ret = _refused(kernel, kernel.driver.dev_path(dev), event)
        kernel.printk.dev_err(dev, f"uevent: failed to send synthetic uevent: {ret}")
        return ret
    kernel.driver.kobject_uevent(dev, *event)
    return 0


# modules -------------------------------------------------------------------------------------------------------


def module_uevent_store(kernel: Kernel, module: Module | KernelObject, buf: bytes) -> int:
    """Send an event of the module."""
    return _silent_uevent(kernel, f"module/{module.name}", buf)


def initstate_show(kernel: Kernel, module: Module) -> str:
    """``live``, ``coming`` or ``going``."""
    return f"{module.state}\n"


def refcnt_show(kernel: Kernel, module: Module) -> str:
    """How many modules use it. A real kernel also counts open files and mounts, which are not modelled."""
    return f"{len(module.refs)}\n"


BUS_FILES: Final = (
    Attribute("uevent", 0o200, None, bus_uevent_store, "", "drivers/base/bus.c:bus_uevent_store"),
    Attribute("drivers_probe", 0o200, None, drivers_probe_store, "", "drivers/base/bus.c:drivers_probe_store"),
    Attribute(
        "drivers_autoprobe",
        0o644,
        drivers_autoprobe_show,
        drivers_autoprobe_store,
        "%d",
        "drivers/base/bus.c:drivers_autoprobe_show, drivers_autoprobe_store",
    ),
)
"""/sys/bus/<bus>/."""

DRIVER_FILES: Final = (
    Attribute("uevent", 0o200, None, driver_uevent_store, "", "drivers/base/bus.c:uevent_store"),
    Attribute("bind", 0o200, None, bind_store, "", "drivers/base/bus.c:bind_store"),
    Attribute("unbind", 0o200, None, unbind_store, "", "drivers/base/bus.c:unbind_store"),
)
"""/sys/bus/<bus>/drivers/<driver>/."""

DEVICE_FILES: Final = (
    Attribute(
        "uevent",
        0o644,
        uevent_show,
        uevent_store,
        "%s=%s (a line each)",
        "drivers/base/core.c:uevent_show",
    ),
)
"""/sys/devices/.../<device>/."""

MODULE_FILES: Final = (
    Attribute("uevent", 0o200, None, module_uevent_store, "", "kernel/params.c:store_uevent"),
    Attribute("initstate", 0o444, initstate_show, None, "%s", "kernel/module/main.c:show_initstate"),
    Attribute("refcnt", 0o444, refcnt_show, None, "%i", "kernel/module/main.c:show_refcnt"),
)
"""/sys/module/<module>/ of a loaded module; of built-in code with parameters the first alone."""
