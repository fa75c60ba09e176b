"""sysfs.h: the tree below /sys, as the kernel's objects say when somebody looks.

Nothing is stored: buses, drivers, devices and modules are asked each time. A tree that were kept beside them could
disagree with them, and every boot would pay for it, looked at or not.

Paths are given without a leading slash, ``bus/vmbus/devices``. Reading and writing run code of the kernel, which takes
locks and may sleep: call them in a task (``session.call(kernel.sysfs.read, path)``).

Not here: /sys/class, /sys/block, /sys/dev, /sys/firmware and /sys/power. There is no /sys/hypervisor on Hyper-V: 6.1
makes it for Xen and s390 only (CONFIG_SYS_HYPERVISOR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.device import BusType, Device, DeviceDriver
from hvkernel.api.guest.errno import EACCES, EFAULT, EINVAL, EIO, EISDIR, ELOOP, ENOENT, ENOTDIR
from hvkernel.api.guest.kernel import KernelObject
from hvkernel.api.guest.sysfs import Attribute, AttributeGroup, Dentry, Kobject
from hvkernel.linux.params import param_attribute
from hvkernel.linux.sysfs_files import BUS_FILES, DEVICE_FILES, DRIVER_FILES, MODULE_FILES, device_entry

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel
    from hvkernel.linux.module import Module

__all__ = ["Directory", "File", "Link", "Node", "Sysfs"]

MAX_LINKS: Final = 40
"""Links that one look-up follows. Source: include/linux/namei.h MAXSYMLINKS."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: its attribute, and the object whose it is."""

    attr: Attribute
    object: Any
    mode: int
    kernel: Kernel

    def read(self) -> bytes | int:
        """Return the contents, less than a page.

        -EACCES for a file without read permission, else what its function says; -EFAULT if that is a plugin's and
        raised.
        """
        if self.attr.show is None or not self.mode & 0o444:
            return -EACCES
        try:
            text = self.attr.show(self.object)
        except Exception as error:
            self.kernel.survive(error)
            return -EFAULT
        if isinstance(text, int):
            return text
        return text.encode("utf-8", "surrogateescape")[: self.kernel.mm.PAGE_SIZE - 1]

    def write(self, data: bytes) -> int:
        """Store one write; 0 or a negative errno, -EACCES for a file without write permission, even for root.

        Source: fs/kernfs/file.c:kernfs_fop_open (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK).
        """
        if not self.mode & 0o222:
            return -EACCES
        if self.attr.store is None:
            return -EIO
        try:
            return self.attr.store(self.object, data)
        except Exception as error:
            self.kernel.survive(error)
            return -EFAULT


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; ``target`` is a path below /sys, which a reader sees relative to the link."""

    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory; its entries are made when asked for."""

    entries: Callable[[], dict[str, Node]]
    mode: int = 0o755


Node = File | Link | Directory


class Sysfs:
    """``kernel.sysfs``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    # looking ---------------------------------------------------------------------------------------------------

    def root(self) -> Directory:
        """The tree as of now; entries made from it later show a later state."""
        return _Tree(self._kernel).root()

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every path but the root with its node, a directory before its entries, entries by name."""
        yield from _walk("", self.root())

    def lookup(self, path: str, *, follow: bool = True) -> Node | int:
        """The node at ``path``, or -ENOENT, -ENOTDIR, -ELOOP.

        :param follow: follow a link at the end of the path, as open() does; links on the way are always followed.
        """
        found = self._resolve(path, follow)
        return found if isinstance(found, int) else found[1]

    def _resolve(self, path: str, follow: bool) -> tuple[str, Node] | int:
        """The path without links, and the node there."""
        root = self.root()
        parts = [part for part in reversed(path.split("/")) if part]
        at: Node = root
        real: list[str] = []
        links = 0
        while parts:
            part = parts.pop()
            if not isinstance(at, Directory):
                return -ENOTDIR
            found = at.entries().get(part)
            if found is None:
                return -ENOENT
            if isinstance(found, Link) and (parts or follow):
                links += 1
                if links > MAX_LINKS:
                    return -ELOOP
                parts += reversed(found.target.split("/"))
                at, real = root, []
            else:
                at = found
                real.append(part)
        return "/".join(real), at

    def listdir(self, path: str) -> list[str] | int:
        """The names in a directory, sorted, or a negative errno."""
        node = self.lookup(path)
        if isinstance(node, int):
            return node
        return sorted(node.entries()) if isinstance(node, Directory) else -ENOTDIR

    def readlink(self, path: str) -> str | int:
        """A link's target relative to the directory it lies in, as readlink() gives it, or a negative errno."""
        found = self._resolve(path, False)
        if isinstance(found, int):
            return found
        where, node = found
        return relative(where, node.target) if isinstance(node, Link) else -EINVAL

    # reading and writing ---------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | int:
        """A file's contents, or a negative errno."""
        node = self.lookup(path)
        if isinstance(node, int):
            return node
        return node.read() if isinstance(node, File) else -EISDIR

    def write(self, path: str, data: bytes) -> int:
        """One write() of ``data``: 0 or a negative errno. What is beyond a page is the next write's, which is not made.

        Source: fs/kernfs/file.c:kernfs_fop_write_iter.
        """
        node = self.lookup(path)
        if isinstance(node, int):
            return node
        return node.write(data[: self._kernel.mm.PAGE_SIZE]) if isinstance(node, File) else -EISDIR


def relative(path: str, target: str) -> str:
    """Return ``target`` as seen from the directory of ``path``. Source: fs/kernfs/symlink.c:kernfs_get_target_path."""
    here = path.strip("/").split("/")[:-1]
    there = target.split("/")
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + there[common:]) or "."


def _walk(path: str, directory: Directory) -> Iterator[tuple[str, Node]]:
    entries = directory.entries()
    for name in sorted(entries):
        node = entries[name]
        where = f"{path}/{name}" if path else name
        yield where, node
        if isinstance(node, Directory):
            yield from _walk(where, node)


def _name(name: str) -> str:
    """A kobject's name as a file's: slashes become ``!``. Source: lib/kobject.c:kobject_set_name_vargs."""
    return name.replace("/", "!")


class _Tree:
    """The tree for one look, with the devices by their parents."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._children: dict[str, dict[str, Device | None]] = {}
        for dev in kernel.driver.devices:
            path = kernel.driver.dev_path(dev)
            parent, _, name = path.rpartition("/")
            self._children.setdefault(parent, {})[name] = dev
            while parent != "devices":  # a directory that is no device, as target0:0:0
                path, (parent, _, name) = parent, parent.rpartition("/")
                self._children.setdefault(parent, {}).setdefault(name, None)

    def root(self) -> Directory:
        kernel = self._kernel
        top: dict[str, Node] = {
            "bus": Directory(lambda: {_name(bus.name): self._bus(bus) for bus in kernel.driver.buses.values()}),
            "devices": Directory(lambda: self._devices("devices")),
            "kernel": Directory(self._kernel_dir),
            "module": Directory(self._modules),
        }
        return Directory(lambda: top)

    def _files(self, attrs: Iterable[Attribute], obj: Any) -> dict[str, Node]:
        return {attr.name: File(attr.bound(self._kernel), obj, attr.mode, self._kernel) for attr in attrs}

    def _groups(self, groups: Iterable[AttributeGroup], obj: Any) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for group in groups:
            files: dict[str, Node] = {}
            for attr in group.attrs:
                mode = attr.mode if group.is_visible is None else group.is_visible(obj, attr)
                if mode:
                    files[attr.name] = File(attr.bound(*group.arguments), obj, mode, self._kernel)
            if group.name:
                found[group.name] = _fixed(files)
            else:
                found.update(files)
        return found

    # /sys/bus --------------------------------------------------------------------------------------------------

    def _bus(self, bus: BusType) -> Directory:
        def devices() -> dict[str, Node]:
            return {device_entry(dev): Link(self._kernel.driver.dev_path(dev)) for dev in bus.devices}

        def entries() -> dict[str, Node]:
            return {
                **self._files(BUS_FILES, bus),
                **self._groups(bus.bus_groups, bus),
                "devices": Directory(devices),
                "drivers": Directory(lambda: {_name(drv.name): self._driver(bus, drv) for drv in bus.drivers}),
            }

        return Directory(entries)

    def _driver(self, bus: BusType, drv: DeviceDriver) -> Directory:
        def entries() -> dict[str, Node]:
            found = {**self._files(DRIVER_FILES, drv), **self._groups(bus.drv_groups, drv)}
            found.update({device_entry(dev): Link(self._kernel.driver.dev_path(dev)) for dev in drv.devices})
            if drv.owner is not None and drv.owner in self._owners():
                found["module"] = Link(f"module/{drv.owner}")
            return found

        return Directory(entries)

    # /sys/devices ----------------------------------------------------------------------------------------------

    def _devices(self, path: str) -> dict[str, Node]:
        return {
            name: Directory(lambda at=f"{path}/{name}", dev=dev: self._device(at, dev))  # type: ignore[misc]  # binds the loop's values
            for name, dev in self._children.get(path, {}).items()
        }

    def _device(self, path: str, dev: Device | None) -> dict[str, Node]:
        found = self._devices(path)
        if dev is None:
            return found
        found.update(self._files(DEVICE_FILES, dev))
        bus = dev.bus
        if bus is not None:
            found["subsystem"] = Link(f"bus/{_name(bus.name)}")
            found.update(self._groups(bus.dev_groups, dev))
            for kobject in bus.dev_kobjects(dev) if bus.dev_kobjects is not None else ():
                found[_name(kobject.name)] = self._kobject(kobject)
            if dev.driver is not None:
                found["driver"] = Link(f"bus/{_name(bus.name)}/drivers/{_name(dev.driver.name)}")
        found.update(self._groups(dev.groups, dev))
        return found

    def _kobject(self, kobject: Kobject) -> Directory:
        return Directory(
            lambda: {
                **self._groups(kobject.groups, kobject.object),
                **{_name(child.name): self._kobject(child) for child in kobject.children},
            }
        )

    # /sys/module -----------------------------------------------------------------------------------------------

    def _owners(self) -> dict[str, Module | KernelObject]:
        """What has a directory: loaded modules, and built-in code with parameters.

        Source: kernel/params.c:param_sysfs_builtin. (Built-in code with a version has one too; none here has.)
        """
        found: dict[str, Module | KernelObject] = {
            name: module for name, module in self._kernel.module.modules.items() if module.state != "unloaded"
        }
        for obj in self._kernel.objects:
            if obj.name in self._kernel.module.builtin and any(param.mode for param in obj.parameters):
                found[obj.name] = obj
        return found

    def _modules(self) -> dict[str, Node]:
        return {
            name: Directory(lambda owner=owner: self._module(owner))  # type: ignore[misc]  # binds the loop's value
            for name, owner in self._owners().items()
        }

    def _module(self, owner: Module | KernelObject) -> dict[str, Node]:
        kernel = self._kernel
        obj = owner if isinstance(owner, KernelObject) else owner.obj
        found = self._files(MODULE_FILES, owner)
        if isinstance(owner, KernelObject):
            del found["initstate"], found["refcnt"]
        else:
            if not kernel.config.y("MODULE_UNLOAD"):
                del found["refcnt"]
            found["holders"] = _fixed({name: Link(f"module/{name}") for name in owner.refs})
        params = {
            param.name: File(param_attribute(param), owner, param.mode, self._kernel)
            for param in obj.parameters
            if param.mode
        }
        if params:
            found["parameters"] = _fixed(dict(params))
        drivers: dict[str, Node] = {
            f"{_name(bus.name)}:{_name(drv.name)}": Link(f"bus/{_name(bus.name)}/drivers/{_name(drv.name)}")
            for bus in kernel.driver.buses.values()
            for drv in bus.drivers
            if drv.owner == owner.name
        }
        if drivers:
            found["drivers"] = _fixed(drivers)
        return found

    # /sys/kernel -----------------------------------------------------------------------------------------------

    def _kernel_dir(self) -> dict[str, Node]:
        debugfs = self._kernel.debugfs
        return {"debug": Directory(lambda: self._dentry(debugfs.root), 0o700)} if debugfs.enabled else {}

    def _dentry(self, dentry: Dentry) -> dict[str, Node]:
        found: dict[str, Node] = {
            name: Directory(lambda child=child: self._dentry(child))  # type: ignore[misc]  # binds the loop's value
            for name, child in dentry.directories.items()
        }
        for name, (attr, data) in dentry.files.items():
            found[name] = File(attr, data, attr.mode, self._kernel)
        return found


def _fixed(entries: dict[str, Node]) -> Directory:
    return Directory(lambda: entries)
