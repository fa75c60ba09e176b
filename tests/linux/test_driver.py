"""Driver core, modules, symbols, notifiers, resources, command line."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.device import NOTIFY_OK, NOTIFY_STOP, BusType, Device, DeviceDriver, NotifierBlock, ProbeType
from hvkernel.api.guest.kernel import Export, Import, KernelObject
from hvkernel.linux.cmdline import CommandLine
from hvkernel.linux.ioport import IoResources
from hvkernel.linux.kernel import LinkFailure
from hvkernel.linux.notifier import NotifierChain
from hvkernel.linux.symbols import SymbolError, Symbols


class Api:
    pass


class Other:
    pass


def bus_of(log: Any, result: Any = 0) -> Any:
    def probe(dev: Any) -> Any:
        log.append(("probe", dev.name, dev.driver.name))
        return result(dev) if callable(result) else result

    def uevent(dev: Any, env: dict[str, str]) -> int:
        env["MODALIAS"] = f"tbus:{dev.name}"
        return 0

    return BusType(
        "tbus",
        match=lambda dev, drv: dev.name.startswith(drv.name),
        probe=probe,
        remove=lambda dev: log.append(("remove", dev.name)),
        shutdown=lambda dev: log.append(("shutdown", dev.name)),
        uevent=uevent,
    )


def test_devices_and_drivers_find_each_other_in_either_order(guest: Any) -> None:
    core = guest.kernel.driver
    log: Any = []
    bus = bus_of(log)

    def body() -> None:
        assert core.bus_register(bus) == 0
        assert core.bus_register(bus) == -22
        early, late = Device("a1", bus=bus), Device("a2", bus=bus)
        core.device_register(early)
        drv = DeviceDriver("a", bus=bus)
        assert core.driver_register(drv) == 0
        assert core.driver_register(DeviceDriver("a", bus=bus)) == -16
        core.device_register(late)
        core.device_register(Device("b1", bus=bus))
        assert [d.name for d in drv.devices] == ["a1", "a2"]
        core.device_unregister(early)
        assert core.device_register(early) == -22
        core.driver_unregister(drv)
        assert late.driver is None

    guest.call(body)
    assert log == [("probe", "a1", "a"), ("probe", "a2", "a"), ("remove", "a1"), ("remove", "a2")]
    assert "Error: Driver 'a' is already registered, aborting..." in guest.lines


def test_binding_and_unbinding_by_hand(guest: Any) -> None:
    core = guest.kernel.driver
    log: Any = []
    bus = bus_of(log)

    def body() -> None:
        core.bus_register(bus)
        drv, dev, other = DeviceDriver("a", bus=bus), Device("a1", bus=bus), Device("b1", bus=bus)
        for d in (dev, other):
            core.device_register(d)
        core.driver_register(drv)
        assert core.device_driver_attach(drv, dev) == -16
        core.device_release_driver(dev)
        assert dev.driver is None
        assert core.device_driver_attach(drv, dev) == 0
        assert not core.driver_match_device(drv, other)

    guest.call(body)
    assert log == [("probe", "a1", "a"), ("remove", "a1"), ("probe", "a1", "a")]


def test_failed_probes_say_so_unless_they_only_disagree(guest: Any) -> None:
    core = guest.kernel.driver
    log: Any = []
    results = {"a1": -12, "a2": -19, "a3": -6}
    bus = bus_of(log, lambda dev: results[dev.name])

    def body() -> None:
        core.bus_register(bus)
        devices = [Device(n, bus=bus) for n in results]
        for dev in devices:
            core.device_register(dev)
        core.driver_register(DeviceDriver("a", bus=bus))
        assert [d.probe_error for d in devices] == [-12, -19, -6]
        assert not any(d.driver for d in devices)

    guest.call(body)
    assert guest.lines == ["a: probe of a1 failed with error -12"]


def test_a_deferred_probe_is_tried_again_when_something_was_bound(guest: Any) -> None:
    core = guest.kernel.driver
    log: Any = []
    ready: Any = []
    bus = bus_of(log, lambda dev: 0 if dev.name != "a1" or ready else -517)

    def body() -> None:
        core.bus_register(bus)
        waiting = Device("a1", bus=bus)
        core.device_register(waiting)
        core.driver_register(DeviceDriver("a", bus=bus))
        assert waiting.deferred
        ready.append(1)
        core.device_register(Device("a2", bus=bus))
        guest.kernel.async_.async_synchronize_full()
        assert waiting.driver is not None
        assert not waiting.deferred

    guest.call(body)


def test_asynchronous_drivers_probe_in_other_tasks(guest: Any) -> None:
    k = guest.kernel
    log: Any = []
    bus = bus_of(log, lambda dev: log.append(guest.machine.current.name) or k.sched.msleep(4) or 0)

    def body() -> None:
        k.driver.bus_register(bus)
        for n in range(2):
            k.driver.device_register(Device(f"a{n}", bus=bus))
        k.driver.driver_register(DeviceDriver("a", bus=bus, probe_type=ProbeType.PROBE_PREFER_ASYNCHRONOUS))
        assert log == []
        k.driver.device_register(Device("a2", bus=bus))
        k.async_.async_synchronize_full()

    guest.call(body)
    assert sorted(e[1] for e in log if isinstance(e, tuple)) == ["a0", "a1", "a2"]
    assert all(e.startswith("kworker/u") for e in log if isinstance(e, str))


def test_uevents_carry_path_bus_and_alias(guest: Any) -> None:
    core = guest.kernel.driver
    events: Any = []
    bus = bus_of([])
    core.listeners.append(lambda action, dev, env: events.append(env))

    def body() -> None:
        core.bus_register(bus)
        parent = Device("LNXSYSTM:00")
        core.device_register(Device("a1", bus=bus, parent=parent))

    guest.call(body)
    assert events == [
        {"ACTION": "add", "DEVPATH": "/devices/LNXSYSTM:00/a1", "SUBSYSTEM": "tbus", "MODALIAS": "tbus:a1"}
    ]


def test_shutdown_goes_from_the_youngest(guest: Any) -> None:
    core = guest.kernel.driver
    log: Any = []
    bus = bus_of(log)

    def body() -> None:
        core.bus_register(bus)
        core.driver_register(DeviceDriver("a", bus=bus))
        for n in range(3):
            core.device_register(Device(f"a{n}", bus=bus))
        core.device_shutdown()

    guest.call(body)
    assert [e[1] for e in log if e[0] == "shutdown"] == ["a2", "a1", "a0"]


# modules ---------------------------------------------------------------------------------------------------------


def obj(name: Any, config: Any = "M", init: Any = lambda k: 0, **more: Any) -> Any:
    return KernelObject(name, config, f"drivers/x/{name}.o", init, **more)


def linked(make_guest: Any, config: Any, *objects: Any, **options: Any) -> Any:
    guest = make_guest(config=config, core=False, **options)
    for o in objects:
        guest.kernel.register_object(o)
    guest.kernel.link()
    guest.kernel.module.set_available(None)
    return guest


def test_a_module_is_loaded_after_what_it_needs(make_guest: Any) -> None:
    order: Any = []

    def init(name: Any, result: Any = 0) -> Any:
        return lambda k: order.append(name) or result

    guest = linked(
        make_guest,
        {"M": "m"},
        obj("top", init=init("top"), imports=(Import(Api, ("f",)),), softdeps=("soft",)),
        obj(
            "lib", init=init("lib"), link=lambda k: k.symbols.export(Api, "impl", "lib"), exports=(Export(Api, ("f",)),)
        ),
        obj("soft", init=init("soft")),
    )
    m = guest.kernel.module
    assert guest.call(m.request_module, "top") == 0
    assert order == ["soft", "lib", "top"]
    assert guest.kernel.symbol(Api) == "impl"
    assert m.loaded_order == ["soft", "lib", "top"]
    assert guest.call(m.request_module, "top") == 0
    assert guest.call(m.delete_module, "lib") == -16


def test_a_module_whose_init_fails_can_be_tried_again(make_guest: Any) -> None:
    results = [-19, 0]
    guest = linked(make_guest, {"M": "m"}, obj("x", init=lambda k: results.pop(0)))
    m = guest.kernel.module
    assert guest.call(m.request_module, "x") == -19
    assert not m.module_loaded("x")
    assert m.failed == [("x", -19)]
    assert guest.call(m.request_module, "x") == 0
    assert m.module_loaded("x")


def test_unloading_calls_exit_and_forgets_its_symbols(make_guest: Any) -> None:
    gone: Any = []
    guest = linked(
        make_guest,
        {"M": "m"},
        obj(
            "x",
            exit=lambda k: gone.append(1),
            link=lambda k: k.symbols.export(Api, 1, "x"),
            exports=(Export(Api, ("f",)),),
        ),
    )
    m = guest.kernel.module
    guest.call(m.request_module, "x")
    assert guest.call(m.delete_module, "x") == 0
    assert gone == [1]
    with pytest.raises(SymbolError, match="Unknown symbol Api"):
        guest.kernel.symbol(Api)
    assert guest.call(m.delete_module, "x") == -2


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        ("vmbus:d96361baa104294db60572e2ffb1dc7f", ["storvsc"]),
        ("acpi:VMBUS:", ["vmbus"]),
        ("acpi:VMBus:PNP0A03:", ["vmbus"]),
        ("acpi:LNXCPU:", []),
        ("scsi:t-0x00", ["sd"]),
        ("vmbus:d96361baa104294db60572e2ffb1dc70", []),
    ],
)
def test_aliases_match_as_modprobe_matches_them(make_guest: Any, alias: Any, names: Any) -> None:
    guest = linked(
        make_guest,
        {"M": "m"},
        obj("storvsc", aliases=("vmbus:d96361baa104294db60572e2ffb1dc7f",)),
        obj("vmbus", aliases=("acpi*:VMBUS:*", "acpi*:VMBus:*")),
        obj("sd", aliases=("scsi:t-0x00*",)),
    )
    assert guest.kernel.module.by_alias(alias) == names
    assert guest.call(guest.kernel.module.load_alias, alias) == names


def test_a_module_that_the_root_has_not_is_not_loaded(make_guest: Any) -> None:
    guest = linked(make_guest, {"M": "m"}, obj("x", aliases=("a:*",)), obj("y"))
    m = guest.kernel.module
    m.set_available(["y"])
    assert guest.call(m.request_module, "x") == -2
    assert guest.call(m.load_alias, "a:1") == []
    assert guest.call(m.request_module, "y") == 0
    assert guest.call(m.request_module, "zzz") == -2
    assert m.missing == [("x", "not in this root"), ("zzz", "not built")]


def test_two_tasks_that_want_one_module_load_it_once(make_guest: Any) -> None:
    count: Any = []
    guest = linked(make_guest, {"M": "m"}, obj("x", init=lambda k: (count.append(1), k.sched.msleep(8), 0)[2]))
    k = guest.kernel
    results: Any = []

    def body() -> None:
        for cpu in (0, 1):
            k.sched.kthread_run(lambda: results.append(k.module.request_module("x")), name=f"udev{cpu}", cpu=cpu)
        while len(results) < 2:
            k.sched.msleep(1)

    guest.call(body)
    assert count == [1]
    assert results == [0, 0]


@pytest.mark.parametrize(
    ("user", "owner", "errors"),
    [("y", "y", 0), ("m", "y", 0), ("m", "m", 0), ("y", "m", 2), ("y", "n", 2), ("m", "n", 2), ("n", "n", 0)],
)
def test_the_link_check(make_guest: Any, user: Any, owner: Any, errors: Any) -> None:
    guest = make_guest(config={"USER": user, "OWNER": owner}, core=False)
    k = guest.kernel
    k.register_object(obj("user", "USER", imports=(Import(Api, ("f", "g")), Import(Other, ("core",)))))
    k.register_object(obj("owner", "OWNER", exports=(Export(Api, ("f", "g")),)))
    assert len(k.link_errors()) == errors
    if errors:
        with pytest.raises(
            LinkFailure, match=rf"undefined reference to `f' \(exported by owner, CONFIG_OWNER={owner}\)"
        ):
            k.link()
    else:
        k.link()


def test_registration_is_checked(make_guest: Any) -> None:
    guest = make_guest(core=False)
    k = guest.kernel
    k.register_object(obj("x"))
    with pytest.raises(ValueError, match=r"x .* is registered twice"):
        k.register_object(obj("x"))
    with pytest.raises(ValueError, match="is not a relative path"):
        k.register_object(KernelObject("y", "Y", "drivers/y.c", lambda k: 0))
    k.link()
    with pytest.raises(RuntimeError, match="linked already"):
        k.register_object(obj("z"))


def test_symbols_are_there_once() -> None:
    table = Symbols()
    table.export(Api, 1, "a")
    with pytest.raises(SymbolError, match=r"b: duplicate symbols Api \(owned by a\)"):
        table.export(Api, 2, "b")
    assert table.owner(Api) == "a"
    assert table.owner(Other) is None
    assert dict(table.table()) == {"Api": "a"}


# small things ----------------------------------------------------------------------------------------------------


def test_notifiers_run_by_priority_and_can_stop() -> None:
    chain = NotifierChain("c")
    log: Any = []

    def block_of(n: str, priority: int) -> NotifierBlock:
        return NotifierBlock(lambda a, d: log.append((n, a, d)) or NOTIFY_OK, priority)

    blocks = {n: block_of(n, p) for n, p in (("low", -1), ("a", 0), ("b", 0), ("top", 9))}
    for block in blocks.values():
        assert chain.register(block) == 0
    assert chain.register(blocks["a"]) == -17
    assert chain.call_chain(3, "x") == NOTIFY_OK
    assert [e[0] for e in log] == ["top", "a", "b", "low"]
    stop = NotifierBlock(lambda a, d: NOTIFY_STOP, 5)
    chain.register(stop)
    log.clear()
    assert chain.call_chain(3) == NOTIFY_STOP
    assert [e[0] for e in log] == ["top"]
    assert chain.unregister(stop) == 0
    assert chain.unregister(stop) == -2
    assert len(chain) == 4


def test_a_notifier_that_leaves_during_the_call_is_not_called() -> None:
    chain = NotifierChain("c")
    log: Any = []
    second = NotifierBlock(lambda a, d: log.append("second"))
    chain.register(NotifierBlock(lambda a, d: chain.unregister(second) and None, 1))
    chain.register(second)
    chain.call_chain(0)
    assert log == []


def test_memory_resources_do_not_overlap() -> None:
    io = IoResources()
    a = io.request_region(io.iomem_resource, 0x1000, 0x1000, "a")
    assert a is not None
    assert (a.start, a.end) == (0x1000, 0x1FFF)
    assert io.request_region(io.iomem_resource, 0x1800, 0x1000, "b") is None
    assert io.request_region(io.iomem_resource, 0x800, 0x800, "c") is not None
    assert io.request_region(io.iomem_resource, 0x5000, 0, "empty") is None
    io.release_region(io.iomem_resource, 0x1000, 0x1000)
    assert io.request_region(io.iomem_resource, 0x1000, 0x1000, "again") is not None
    with pytest.raises(ValueError, match="Trying to free nonexistent resource <00000000"):
        io.release_region(io.iomem_resource, 0x9000, 0x1000)


def test_the_command_line() -> None:
    line = CommandLine(
        b'root=PARTUUID=46-02 ro quiet  console="tty0 x" scsi_mod.scan=sync rootdelay=0x10 panic=-1\0junk'
    )
    assert line.text.endswith("panic=-1")
    assert line.get("root") == "PARTUUID=46-02"
    assert line.has("quiet")
    assert not line.has("noisy")
    assert line.get("console") == "tty0 x"
    assert line.integer("rootdelay", 0) == 16
    assert line.integer("panic", 0) == -1
    assert line.integer("nothing", 5) == 5
    assert CommandLine(b"").text == ""
    assert CommandLine(b"\xff=1").has("\ufffd")
