"""The driver core: buses, devices, drivers, binding, uevents.

Source: drivers/base/bus.c, core.c, dd.c of 6.1. Asynchronous probes run through async_schedule() as in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

from hvkernel.api.guest.device import BusType, Device, DeviceDriver, ProbeType
from hvkernel.api.guest.errno import EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENODEV, ENXIO, EPROBE_DEFER
from hvkernel.linux.locking import Locking, MutexLock
from hvkernel.linux.printk import Printk


class Async(Protocol):
    """What the driver core needs of kernel/async.c."""

    def async_schedule(self, fn: Callable[[], None], name: str) -> None: ...


def _raise(error: Exception) -> None:
    raise error


class DriverCore:
    """``kernel.driver``."""

    def __init__(self, printk: Printk, locking: Locking, async_: Async, page_size: int = 4096) -> None:
        """:param page_size: bytes; what one write to a sysfs file may hold."""
        self._printk = printk
        self._locking = locking
        self._async = async_
        self._page_size = page_size
        self.buses: dict[str, BusType] = {}
        self.devices: list[Device] = []
        """Every registered device, in the order of registration (which is how coldplug finds them)."""
        self.listeners: list[Callable[[str, Device, dict[str, str]], None]] = []
        """Called with (action, device, environment) of each uevent: user space's netlink socket."""
        self._deferred: list[Device] = []
        self._async_driver: dict[Device, DeviceDriver] = {}
        self.survive: Callable[[Exception], None] = _raise
        """Called with what a driver's probe raised; returns if the kernel goes on without it."""
        self.current_owner: Callable[[], str | None] = lambda: None
        """Module whose init runs now; becomes the owner of drivers that it registers."""

    # buses -----------------------------------------------------------------------------------------------------

    def bus_register(self, bus: BusType) -> int:
        """-EINVAL when a bus of that name is there."""
        if bus.name in self.buses:
            return -EINVAL
        self.buses[bus.name] = bus
        return 0

    def bus_unregister(self, bus: BusType) -> None:
        self.buses.pop(bus.name, None)

    def bus_for_each_dev(self, bus: BusType) -> Iterator[Device]:
        """The devices on ``bus`` now; devices may come and go while you look."""
        for dev in tuple(bus.devices):
            if dev.registered:
                yield dev

    # devices ---------------------------------------------------------------------------------------------------

    def device_register(self, dev: Device) -> int:
        """device_add(): the bus, the uevent, a driver. -EINVAL without a name or when added already or after
        removal, -EEXIST when its parent has a device of that name."""
        if not dev.name or dev.registered or dev.dead:
            return -EINVAL
        if dev.bus is not None and any(
            other.name == dev.name and other.parent is dev.parent for other in dev.bus.devices
        ):
            self.duplicate(f"/{self.dev_path(dev)}", dev.name)
            return -EEXIST
        self.device_add(dev)
        self.bus_probe_device(dev)
        return 0

    def duplicate(self, path: str, name: str) -> None:
        """Say that a directory of that name is there already; the backtrace between the lines is not modelled.

        Source: fs/sysfs/dir.c:sysfs_warn_dup, lib/kobject.c:kobject_add_internal.
        """
        self._printk.pr_warn(f"sysfs: cannot create duplicate filename '{path}'")
        self._printk.pr_err(
            f"kobject_add_internal failed for {name} with -EEXIST, don't try to register things with the same name"
            " in the same directory."
        )

    def device_add(self, dev: Device) -> None:
        """The part of device_add() before probing."""
        dev.registered = True
        self.devices.append(dev)
        if dev.bus is not None:
            dev.bus.devices.append(dev)
        self.kobject_uevent(dev, "add")

    def bus_probe_device(self, dev: Device) -> None:
        """device_initial_probe(): bind now, or in another task when only asynchronous drivers match."""
        if dev.bus is None or not dev.bus.drivers_autoprobe:
            return
        with self._lock(dev):
            if dev.dead or dev.driver is not None:
                return
            have_async = False
            for drv in tuple(dev.bus.drivers):
                if self._match(drv, dev) <= 0:
                    continue
                if drv.probe_type == ProbeType.PROBE_PREFER_ASYNCHRONOUS:
                    have_async = True
                    continue
                self._probe(drv, dev)
                if dev.driver is not None:
                    return
        if have_async:
            self._async.async_schedule(lambda: self._attach_async(dev), f"attach {dev.name}")

    def _attach_async(self, dev: Device) -> None:
        with self._lock(dev):
            if dev.dead or dev.driver is not None or dev.bus is None:
                return
            for drv in tuple(dev.bus.drivers):
                if self._match(drv, dev) > 0:
                    self._probe(drv, dev)
                    if dev.driver is not None:
                        return

    def device_attach(self, dev: Device) -> None:
        """Bind now, whatever the drivers prefer; nothing when none fits. Source: dd.c:device_attach."""
        self._attach_async(dev)

    def device_unregister(self, dev: Device) -> None:
        """device_del() and put_device(): unbind, leave the bus, send ``remove``, release."""
        if not dev.registered:
            return
        lock = self._lock(dev)
        with lock:
            dev.dead = True
        self.device_release_driver(dev)
        dev.registered = False
        if dev.bus is not None and dev in dev.bus.devices:
            dev.bus.devices.remove(dev)
        self.devices.remove(dev)
        if dev in self._deferred:
            self._deferred.remove(dev)
        self.kobject_uevent(dev, "remove")
        if dev.release is not None:
            dev.release(dev)

    # drivers ---------------------------------------------------------------------------------------------------

    def driver_register(self, drv: DeviceDriver) -> int:
        """-EBUSY when the bus has a driver of that name, -EINVAL when there is no such bus."""
        bus = drv.bus
        if bus is None or self.buses.get(bus.name) is not bus:
            name = bus.name if bus else None
            self._printk.pr_err(
                f"Driver '{drv.name}' was unable to register with bus_type '{name}' "
                "because the bus was not initialized."
            )
            return -EINVAL
        if any(other.name == drv.name for other in bus.drivers):
            self._printk.pr_err(f"Error: Driver '{drv.name}' is already registered, aborting...")
            return -EBUSY
        if drv.owner is None:
            drv.owner = self.current_owner()
        bus.drivers.append(drv)
        if bus.drivers_autoprobe:
            self.driver_attach(drv)
        return 0

    def driver_attach(self, drv: DeviceDriver) -> int:
        """Try ``drv`` on every device of its bus."""
        if drv.bus is None:
            return -EINVAL
        for dev in self.bus_for_each_dev(drv.bus):
            if self._match(drv, dev) <= 0:
                continue
            if drv.probe_type == ProbeType.PROBE_PREFER_ASYNCHRONOUS:
                if dev.driver is None and dev not in self._async_driver:
                    self._async_driver[dev] = drv
                    self._async.async_schedule(partial(self._driver_attach_async, dev), f"probe {dev.name}")
                continue
            with self._lock(dev):
                self._probe(drv, dev)
        return 0

    def _driver_attach_async(self, dev: Device) -> None:
        with self._lock(dev):
            drv = self._async_driver.pop(dev, None)
            if drv is not None:
                self._probe(drv, dev)

    def driver_unregister(self, drv: DeviceDriver) -> None:
        """Unbind its devices, newest first, and take it off its bus."""
        for dev in reversed(tuple(drv.devices)):
            self.device_release_driver(dev)
        if drv.bus is not None and drv in drv.bus.drivers:
            drv.bus.drivers.remove(drv)

    def device_release_driver(self, dev: Device) -> None:
        """Unbind; nothing when it has no driver."""
        with self._lock(dev):
            drv = dev.driver
            if drv is None:
                return
            self.kobject_uevent(dev, "unbind")
            if dev.bus is not None and dev.bus.remove is not None:
                dev.bus.remove(dev)
            dev.driver = None
            dev.driver_data = None
            if dev in drv.devices:
                drv.devices.remove(dev)

    def device_driver_attach(self, drv: DeviceDriver, dev: Device) -> int:
        """Bind ``dev``, which ``drv`` matches, by hand.

        0; -ENODEV for a device that is going, -EBUSY when it has a driver, else the probe's errno (-EAGAIN for
        -EPROBE_DEFER). Source: dd.c:device_driver_attach, __driver_probe_device.
        """
        with self._lock(dev):
            if dev.dead or not dev.registered:
                return -ENODEV
            if dev.driver is not None:
                return -EBUSY
            self._probe(drv, dev)
            if dev.driver is not None:
                return 0
            return -EAGAIN if dev.probe_error == -EPROBE_DEFER else dev.probe_error

    def driver_match_device(self, drv: DeviceDriver, dev: Device) -> bool:
        """Whether the bus lets ``drv`` have ``dev``."""
        return self._match(drv, dev) > 0

    def driver_set_override(self, dev: Device, override: Callable[[str | None], None], s: bytes) -> int:
        """The text up to its first newline becomes the override; nothing, or a newline alone, clears it.

        Source: drivers/base/driver.c:driver_set_override.
        """
        if len(s) >= self._page_size - 1:
            return -EINVAL
        name = s.partition(b"\0")[0].partition(b"\n")[0].decode("utf-8", "surrogateescape")
        with self._lock(dev):
            override(name or None)
        return 0

    # binding ---------------------------------------------------------------------------------------------------

    def _match(self, drv: DeviceDriver, dev: Device) -> int:
        if dev.bus is None or dev.bus.match is None:
            return 1
        return int(dev.bus.match(dev, drv))

    def _probe(self, drv: DeviceDriver, dev: Device) -> None:
        """driver_probe_device(), with the device locked. Source: dd.c:really_probe, call_driver_probe."""
        if dev.dead or not dev.registered or dev.driver is not None or dev.bus is None:
            return
        dev.driver = drv
        try:
            ret = dev.bus.probe(dev) if dev.bus.probe is not None else 0
        except Exception as error:
            self.survive(error)
            ret = -EFAULT
        if ret == 0:
            dev.probe_error = 0
            dev.deferred = False
            if dev in self._deferred:
                self._deferred.remove(dev)
            drv.devices.append(dev)
            self.kobject_uevent(dev, "bind")
            self._retry_deferred()
            return
        dev.driver = None
        dev.driver_data = None
        dev.probe_error = ret
        if ret == -EPROBE_DEFER:
            dev.deferred = True
            if dev not in self._deferred:
                self._deferred.append(dev)
        elif ret not in (-ENODEV, -ENXIO):
            self._printk.pr_warn(f"{drv.name}: probe of {dev.name} failed with error {ret}")

    def _retry_deferred(self) -> None:
        """driver_deferred_probe_trigger(): something was bound, so ask the waiting ones again."""
        pending, self._deferred = self._deferred, []
        for dev in pending:
            self._async.async_schedule(partial(self.bus_probe_device, dev), f"deferred {dev.name}")

    def _lock(self, dev: Device) -> MutexLock:
        if dev.lock is None:
            dev.lock = self._locking.mutex_init("&dev->mutex", check=False)
        lock: MutexLock = dev.lock
        return lock

    def device_shutdown(self) -> None:
        """Call the shutdown of every bound device's bus, youngest device first. Source: drivers/base/core.c."""
        for dev in reversed(tuple(self.devices)):
            if dev.driver is not None and dev.bus is not None and dev.bus.shutdown is not None:
                with self._lock(dev):
                    dev.bus.shutdown(dev)

    # sysfs and uevents -----------------------------------------------------------------------------------------

    def dev_path(self, dev: Device) -> str:
        """Path below /sys: ``devices/…`` through its parents."""
        names = [dev.name]
        parent = dev.parent
        while parent is not None:
            names.append(parent.name)
            parent = parent.parent
        return "devices/" + "/".join(reversed(names))

    def uevent_env(self, dev: Device, action: str) -> dict[str, str] | None:
        """The environment of an event, or None when the bus drops it."""
        env = {"ACTION": action, "DEVPATH": "/" + self.dev_path(dev)}
        if dev.bus is not None:
            env["SUBSYSTEM"] = dev.bus.name
        if dev.driver is not None:
            env["DRIVER"] = dev.driver.name
        if dev.bus is not None and dev.bus.uevent is not None and dev.bus.uevent(dev, env):
            return None
        return env

    def kobject_uevent(self, dev: Device, action: str, extra: Mapping[str, str] | None = None) -> None:
        """Tell user space; nobody hears it before user space runs."""
        if not self.listeners:
            return
        env = self.uevent_env(dev, action)
        if env is None:
            return
        env.update(extra or {})
        for listener in tuple(self.listeners):
            listener(action, dev, env)
