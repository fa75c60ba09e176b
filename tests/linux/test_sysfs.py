"""The tree below /sys: directories, links, names and errors, modules, debugfs; the files of the driver core."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.device import BusType, Device, DeviceDriver
from hvkernel.api.guest.errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENODEV, ENOENT, ENOTDIR
from hvkernel.api.guest.kernel import Export, Import, KernelObject, ModuleParam
from hvkernel.api.guest.sysfs import Attribute, AttributeGroup, Dentry, Kobject
from hvkernel.linux.debugfs import Debugfs
from hvkernel.linux.params import param_attribute
from hvkernel.linux.sysfs import Directory, File, Link, relative
from hvkernel.linux.sysfs_files import synthetic_uevent, written_name


class Counter:
    """An object with one number."""

    value = 7


def number(counter: Counter) -> str:
    return f"{counter.value}\n"


def set_number(counter: Counter, buf: bytes) -> int:
    if not buf.strip().isdigit():
        return -EINVAL
    counter.value = int(buf)
    return 0


NUMBER = Attribute("number", 0o644, number, set_number)
HIDDEN = Attribute("hidden", 0o444, number)


def tree(guest: Any) -> Any:
    """A bus with a driver and devices, one below the other, and a directory that is no device."""
    core = guest.kernel.driver
    counter = Counter()
    group = AttributeGroup((NUMBER, HIDDEN), lambda obj, attr: 0 if attr.name == "hidden" else attr.mode)
    bus = BusType(
        "tbus",
        match=lambda dev, drv: True,
        probe=lambda dev: 0,
        bus_groups=(AttributeGroup((Attribute("about", 0o444, lambda bus: f"{bus.name}\n"),)),),
        drv_groups=(AttributeGroup((Attribute("owner", 0o444, lambda drv: f"{drv.name}\n"),), name="more"),),
        dev_kobjects=lambda dev: (Kobject("parts", children=(Kobject("1", counter, (group,)),)),),
    )
    top = Device("top", bus=bus)
    leaf = Device("target/leaf", bus=bus, parent=top)

    def body() -> None:
        core.bus_register(bus)
        core.driver_register(DeviceDriver("odd/name", bus=bus))
        core.device_register(top)
        core.device_register(leaf)

    guest.call(body)
    return counter


def test_objects_are_directories_and_links(guest: Any) -> None:
    tree(guest)
    sysfs = guest.kernel.sysfs
    assert sysfs.listdir("") == ["bus", "devices", "kernel", "module"]
    assert sysfs.listdir("bus/tbus") == ["about", "devices", "drivers", "drivers_autoprobe", "drivers_probe", "uevent"]
    assert sysfs.listdir("bus/tbus/devices") == ["leaf", "top"]
    assert sysfs.listdir("bus/tbus/drivers") == ["odd!name"], "kobject_set_name() replaces slashes"
    assert sysfs.listdir("bus/tbus/drivers/odd!name") == ["bind", "leaf", "more", "top", "uevent", "unbind"]
    assert sysfs.listdir("devices/top") == ["driver", "parts", "subsystem", "target", "uevent"]
    assert sysfs.listdir("devices/top/target") == ["leaf"]
    assert sysfs.listdir("devices/top/parts/1") == ["number"]
    assert sysfs.readlink("bus/tbus/devices/leaf") == "../../../devices/top/target/leaf"
    assert sysfs.readlink("devices/top/target/leaf/driver") == "../../../../bus/tbus/drivers/odd!name"
    assert sysfs.readlink("bus/tbus/devices/leaf/subsystem") == "../../../../bus/tbus"
    kinds = {path: type(node) for path, node in sysfs.walk()}
    assert kinds["devices/top"] is Directory
    assert kinds["devices/top/driver"] is Link
    assert kinds["devices/top/uevent"] is File
    assert list(kinds) == sorted(kinds, key=lambda path: path.split("/")), "a directory before its entries, by name"


def test_reading_and_writing_run_the_attribute_s_functions(guest: Any) -> None:
    counter = tree(guest)
    sysfs = guest.kernel.sysfs
    path = "bus/tbus/devices/top/parts/1/number"
    assert guest.call(sysfs.read, path) == b"7\n"
    assert guest.call(sysfs.write, path, b"12\n") == 0
    assert counter.value == 12
    assert guest.call(sysfs.write, path, b"x") == -EINVAL
    assert guest.call(sysfs.read, "bus/tbus/about") == b"tbus\n"
    assert guest.call(sysfs.read, "bus/tbus/drivers/odd!name/more/owner") == b"odd/name\n"
    assert guest.call(sysfs.write, path, b"1" * 5000) == 0
    assert counter.value == int("1" * 4096), "one write holds a page at most"


@pytest.mark.parametrize(
    ("path", "read", "write"),
    [
        ("nothing", -ENOENT, -ENOENT),
        ("bus/tbus/about/more", -ENOTDIR, -ENOTDIR),
        ("bus/tbus", -EISDIR, -EISDIR),
        ("bus/tbus/uevent", -EACCES, 0),
        ("bus/tbus/about", b"tbus\n", -EACCES),
        ("devices/top/parts/1/hidden", -ENOENT, -ENOENT),
    ],
)
def test_what_cannot_be_read_or_written_has_its_errno(guest: Any, path: str, read: Any, write: int) -> None:
    tree(guest)
    assert guest.call(guest.kernel.sysfs.read, path) == read
    assert guest.call(guest.kernel.sysfs.write, path, b"add") == write


def test_a_plugin_s_function_that_raises_has_failed(guest: Any) -> None:
    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("mine")

    kernel = guest.kernel
    device = Device("d")
    device.groups = (AttributeGroup((Attribute("bad", 0o644, broken, broken),)),)
    guest.call(kernel.driver.device_register, device)
    with pytest.raises(ZeroDivisionError):
        guest.call(kernel.sysfs.read, "devices/d/bad")
    blamed: list[BaseException] = []
    kernel.blame = lambda error: not blamed.append(error)  # type: ignore[func-returns-value]  # always True
    assert guest.call(kernel.sysfs.read, "devices/d/bad") == -14
    assert guest.call(kernel.sysfs.write, "devices/d/bad", b"1") == -14
    assert len(blamed) == 2


def test_errors_of_looking(guest: Any) -> None:
    tree(guest)
    sysfs = guest.kernel.sysfs
    assert sysfs.listdir("bus/tbus/about") == -ENOTDIR
    assert sysfs.listdir("bus/nobody") == -ENOENT
    assert sysfs.readlink("bus/tbus") == -EINVAL
    assert sysfs.readlink("bus/nobody") == -ENOENT
    around = "/".join(["devices/top/subsystem/devices/top"] + ["subsystem/devices/top"] * 30)
    assert sysfs.lookup(around) == -ELOOP
    assert isinstance(sysfs.lookup("devices/top/subsystem/devices/top/driver"), Directory)


def test_what_goes_is_gone(guest: Any) -> None:
    tree(guest)
    kernel = guest.kernel
    bus = kernel.driver.buses["tbus"]
    leaf = bus.devices[1]
    guest.call(kernel.driver.device_unregister, leaf)
    assert kernel.sysfs.listdir("bus/tbus/devices") == ["top"]
    assert "target" not in kernel.sysfs.listdir("devices/top")
    guest.call(kernel.driver.driver_unregister, bus.drivers[0])
    assert kernel.sysfs.listdir("bus/tbus/drivers") == []
    assert "driver" not in kernel.sysfs.listdir("devices/top")


def test_modules_are_there_while_they_are_loaded(make_guest: Any) -> None:
    class Api:
        pass

    bus = BusType("tbus")

    def lower(kernel: Any) -> int:
        return int(kernel.driver.bus_register(bus))

    def upper(kernel: Any) -> int:
        return int(kernel.driver.driver_register(DeviceDriver("drv", bus=bus)))

    guest = make_guest(config={"LOW": "m", "UP": "m", "MODULES": "y", "MODULE_UNLOAD": "y"})
    kernel = guest.kernel
    for obj in (
        KernelObject("low", "LOW", "drivers/low.o", lower, exports=(Export(Api, ("f",)),)),
        KernelObject(
            "up",
            "UP",
            "drivers/up.o",
            upper,
            exit=lambda k: k.driver.driver_unregister(bus.drivers[0]),
            imports=(Import(Api, ("f",)),),
        ),
    ):
        kernel.register_object(obj)
    kernel.link()
    kernel.module.set_available(None)
    assert kernel.sysfs.listdir("module") == []
    assert guest.call(kernel.module.request_module, "up") == 0
    assert kernel.sysfs.listdir("module") == ["low", "up"]
    assert kernel.sysfs.listdir("module/up") == ["drivers", "holders", "initstate", "refcnt", "uevent"]
    assert kernel.sysfs.readlink("module/up/drivers/tbus:drv") == "../../../bus/tbus/drivers/drv"
    assert kernel.sysfs.readlink("bus/tbus/drivers/drv/module") == "../../../../module/up"
    assert kernel.sysfs.readlink("module/low/holders/up") == "../../up"
    assert guest.call(kernel.sysfs.read, "module/low/refcnt") == b"1\n"
    assert guest.call(kernel.sysfs.read, "module/up/initstate") == b"live\n"
    assert guest.call(kernel.module.delete_module, "up") == 0
    assert kernel.sysfs.listdir("module") == ["low"]
    assert guest.call(kernel.sysfs.read, "module/low/refcnt") == b"0\n"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", b"-1\n", -1),
        ("int", b"+017", 15),
        ("int", b"0", 0),
        ("uint", b"0xffffffff\n", 0xFFFF_FFFF),
        ("int", b"0x80000000", -34),
        ("int", b"-2147483649", -34),
        ("uint", b"4294967296", -34),
        ("uint", b"-1", -EINVAL),
        ("int", b"1 ", -EINVAL),
        ("int", b"1\n\n", -EINVAL),
        ("int", b"08", -EINVAL),
    ],
)
def test_parameters_take_numbers(kind: str, text: bytes, value: int) -> None:
    """Source: kernel/params.c:param_set_int, param_set_uint; lib/kstrtox.c."""
    values = [5]
    attr = param_attribute(ModuleParam("p", kind, 0o644, lambda: values[-1], values.append))
    assert attr.store is not None
    assert attr.show is not None
    if value in (-34, -EINVAL):
        assert attr.store(None, text) == value
        assert values == [5]
    else:
        assert attr.store(None, text) == 0
        assert attr.show(None) == f"{value}\n"
    fixed = param_attribute(ModuleParam("p", kind, 0o444, lambda: 1))
    assert fixed.mode == 0o444


def test_debugfs_directories_and_files(make_guest: Any) -> None:
    guest = make_guest(config={"DEBUG_FS": "y"})
    debugfs, sysfs = guest.kernel.debugfs, guest.kernel.sysfs
    assert sysfs.listdir("kernel/debug") == []
    top = debugfs.debugfs_create_dir("top", None)
    inner = debugfs.debugfs_create_dir("inner", top)
    assert isinstance(inner, Dentry)
    assert debugfs.debugfs_create_dir("inner", top) == -EEXIST
    counter = Counter()
    assert debugfs.debugfs_create_file(NUMBER, inner, counter) == 0
    assert debugfs.debugfs_create_file(NUMBER, inner, counter) == -EEXIST
    assert debugfs.debugfs_create_dir("number", inner) == -EEXIST
    assert guest.call(sysfs.write, "kernel/debug/top/inner/number", b"3") == 0
    assert guest.call(sysfs.read, "kernel/debug/top/inner/number") == b"3\n"
    node = sysfs.lookup("kernel/debug")
    assert isinstance(node, Directory)
    assert node.mode == 0o700
    debugfs.debugfs_remove_recursive(inner)
    assert sysfs.listdir("kernel/debug/top") == []
    debugfs.debugfs_remove_recursive(None)
    debugfs.debugfs_remove_recursive(top)
    assert sysfs.listdir("kernel/debug") == []


def test_without_debugfs_nothing_is_made(guest: Any) -> None:
    assert Debugfs(False).debugfs_create_dir("any", None) == -ENODEV
    assert guest.kernel.sysfs.listdir("kernel") == []


@pytest.mark.parametrize(
    ("path", "target", "link"),
    [
        ("bus/b/devices/d", "devices/d", "../../../devices/d"),
        ("devices/d/subsystem", "bus/b", "../../bus/b"),
        ("bus/b/drivers/x/d", "bus/b/devices/d", "../../devices/d"),
        ("a/b", "a/c", "c"),
        ("a/b/c", "a/b", "."),
    ],
)
def test_links_are_relative_to_their_directory(path: str, target: str, link: str) -> None:
    assert relative(path, target) == link


@pytest.mark.parametrize(
    ("buf", "event"),
    [
        (b"add", ("add", {"SYNTH_UUID": "0"})),
        (b"remove\0", ("remove", {"SYNTH_UUID": "0"})),
        (b"add\n\n", "unknown uevent action string"),
        (b"ad", "unknown uevent action string"),
        (b"add ", "incorrect uevent action arguments"),
        (b"add x", "incorrect uevent action arguments"),
    ],
)
def test_made_up_events(buf: bytes, event: Any) -> None:
    """Source: lib/kobject_uevent.c:kobject_action_type, kobject_action_args."""
    assert synthetic_uevent(buf) == event


@pytest.mark.parametrize(("buf", "name"), [(b"a\n", "a"), (b"a", "a"), (b"a\n\n", "a\n"), (b"a\0b", "a"), (b"", "")])
def test_what_a_write_names(buf: bytes, name: str) -> None:
    assert written_name(buf) == name
