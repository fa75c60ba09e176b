"""The VMBus's files in sysfs and debugfs, held against the kernel's own source and against what the guest does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus, pUl
from hvkernel.api.guest.sysfs import Attribute
from hvkernel.boot.session import Session
from hvkernel.hv import hv_debugfs, sysfs
from hvkernel.linux.sysfs import File

Compose = Callable[..., Session]
TESTING = "CONFIG_DEBUG_FS=y\nCONFIG_HYPERV_TESTING=y\n"
EXISTS, INVALID, NO_DEVICE, BUSY, ACCESS, IO = -17, -22, -19, -16, -13, -5
DEVICES = "bus/vmbus/devices"
DRIVERS = "bus/vmbus/drivers"


# against the source --------------------------------------------------------------------------------------------

MACROS = re.compile(
    r"^static (?P<kind>DEVICE|BUS|DRIVER|VMBUS_CHAN)_ATTR(?:_(?P<how>RO|RW|WO))?\((?P<arguments>[^)]*)\)", re.M
)
FORMAT = re.compile(r"s?n?c?printf\([^\"]*\"(?P<format>[^\"]*)\\n\"")


class Source:
    """What drivers/hv/vmbus_drv.c declares: name to mode and show function, per kind, and the arrays' order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.declared: dict[str, dict[str, tuple[int, str | None, str | None]]] = {}
        for found in MACROS.finditer(text):
            first, *rest = [part.strip() for part in found["arguments"].split(",")]
            if found["how"]:
                mode = {"RO": 0o444, "RW": 0o644, "WO": 0o200}[found["how"]]
                show = f"{first}_show" if mode & 0o444 else None
                store = f"{first}_store" if mode & 0o222 else None
            else:
                mode = int(rest[0], 8)
                show, store = (None if one == "NULL" else one for one in rest[1:])
            self.declared.setdefault(found["kind"], {})[first] = (mode, show, store)

    def array(self, name: str) -> list[str]:
        body = re.search(rf"\*{name}\[\] = {{(.*?)}};", self.text, re.S)
        assert body is not None, name
        return re.findall(r"&\w+?_attr_(\w+)\.attr", body[1])

    def format(self, function: str) -> str:
        body = re.search(rf"\b{function}\(.*?^}}", self.text, re.S | re.M)
        assert body is not None, function
        found = FORMAT.search(body[0])
        assert found is not None, function
        return found["format"]


@pytest.fixture(scope="module")
def source(kernel_source: Path) -> Source:
    return Source((kernel_source / "drivers/hv/vmbus_drv.c").read_text())


@pytest.mark.parametrize(
    ("kind", "array", "table"),
    [
        ("BUS", "vmbus_bus_attrs", sysfs.BUS_ATTRS),
        ("DRIVER", "vmbus_drv_attrs", sysfs.DRIVER_ATTRS),
        ("DEVICE", "vmbus_dev_attrs", sysfs.DEVICE_ATTRS),
        ("VMBUS_CHAN", "vmbus_chan_attrs", sysfs.CHANNEL_ATTRS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_attribute_of_vmbus_drv_is_here_as_it_is_there(
    source: Source, kind: str, array: str, table: tuple[Attribute, ...]
) -> None:
    assert [attr.name for attr in table] == source.array(array)
    assert set(source.declared[kind]) == {attr.name for attr in table}
    for attr in table:
        mode, show, store = source.declared[kind][attr.name]
        assert attr.mode == mode, attr.name
        names = [one for one in (show, store) if one is not None]
        assert attr.source == f"drivers/hv/vmbus_drv.c:{', '.join(names)}", attr.name
        assert (attr.show is not None, attr.store is not None) == (show is not None, store is not None), attr.name
        if show is not None:
            assert attr.format == source.format(show), attr.name


def test_what_hides_without_a_monitor_is_what_the_source_hides(source: Source) -> None:
    for function, hidden in (
        ("vmbus_dev_attr_is_visible", sysfs.MONITOR_DEVICE_ATTRS),
        ("vmbus_chan_attr_is_visible", sysfs.MONITOR_CHANNEL_ATTRS),
    ):
        body = re.search(rf"\b{function}\(.*?^}}", source.text, re.S | re.M)
        assert body is not None
        assert set(re.findall(r"_attr_(\w+)\.attr", body[0])) == hidden


def test_every_file_of_hv_debugfs_is_here(kernel_source: Path) -> None:
    text = (kernel_source / "drivers/hv/hv_debugfs.c").read_text()
    names = re.findall(r'char \*(?:buffer|message|status) = "(\w+)";', text)
    assert [*(attr.name for attr in hv_debugfs.DELAY_FILES), hv_debugfs.STATE_FILE.name] == names
    assert set(re.findall(r"debugfs_create_file\(\w+, (0\d+)", text)) == {"0644"}
    assert {attr.mode for attr in (*hv_debugfs.DELAY_FILES, hv_debugfs.STATE_FILE)} == {0o644}
    assert re.search(r"val > 1000\)\s+return -EINVAL", text)


# a guest -------------------------------------------------------------------------------------------------------


class Sys:
    """The files of a booted guest, read and written by a task of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.kernel = session.kernel
        session.boot()
        assert self.kernel.outcome is not None
        assert self.kernel.outcome.state == "up"

    def read(self, path: str) -> str | int:
        found = self.session.call(self.kernel.sysfs.read, path)
        return found if isinstance(found, int) else found.decode()

    def write(self, path: str, text: str | bytes) -> int:
        data = text.encode() if isinstance(text, str) else text
        ret: int = self.session.call(self.kernel.sysfs.write, path, data)
        self.session.call(self.kernel.async_.async_synchronize_full)
        return ret

    def names(self, path: str) -> list[str]:
        found = self.kernel.sysfs.listdir(path)
        assert isinstance(found, list), (path, found)
        return found

    def device(self, guid: bytes) -> HvDevice:
        devices = self.kernel.driver.buses["vmbus"].devices
        return next(dev for dev in devices if isinstance(dev, HvDevice) and dev.dev_type == guid)

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.kernel.printk.log]


@pytest.fixture
def sys(guest: Compose) -> Callable[..., Sys]:
    return lambda **options: Sys(guest(**options))


@pytest.fixture
def testing(tmp_path: Path) -> Path:
    """A .config with CONFIG_HYPERV_TESTING."""
    from hvkernel.boot.request import default_config

    path = tmp_path / "testing.config"
    path.write_text(default_config() + TESTING)
    return path


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ({"host": "azure-gen2"}, "01-azure-gen2"),
        ({"host": "azure-gen1"}, "10-azure-gen1"),
        ({"arch": "arm64"}, "01-azure-gen2"),
    ],
    ids=["gen2", "gen1", "arm64"],
)
def test_devices_lie_where_real_guests_have_them(sys: Callable[..., Sys], options: Any, log: str) -> None:
    """The keyboard's path in real logs; arm64's is that of generation 2."""
    text = (Path(__file__).parents[1] / f"data/dmesg/{log}.txt").read_text()
    found = re.search(r"input: AT Translated Set 2 keyboard as /(devices/LNXSYSTM\S+)/[0-9a-f-]{36}/serio", text)
    assert found is not None
    parent = found[1]
    s = sys(**options)
    assert len(s.names(DEVICES)) > 5
    for name in s.names(DEVICES):
        assert s.kernel.sysfs.readlink(f"{DEVICES}/{name}") == f"../../../{parent}/{name}"
        subsystem = s.kernel.sysfs.readlink(f"{DEVICES}/{name}/subsystem")
        assert subsystem == "../" * (2 + parent.count("/")) + "bus/vmbus"


def test_every_file_reads_as_its_format_says(sys: Callable[..., Sys]) -> None:
    s = sys()
    patterns = {"%d": r"-?\d+", "%u": r"\d+", "%llu": r"\d+", "0x%x": "0x[0-9a-f]+", "%s": ".*"}
    patterns["{%pUl}"] = r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}"
    patterns["vmbus:%*phN"] = "vmbus:[0-9a-f]{32}"
    patterns["%u:%u"] = r"\d+:\d+(\n\d+:\d+)*"
    patterns |= {"0x%08llx": "0x[0-9a-f]{8}", "acpi:%s:": "acpi:([A-Z0-9]+:)+"}
    patterns["%i"] = patterns["%d"]
    patterns["%s=%s (a line each)"] = r"([A-Z]+=[^\n]+\n)*([A-Z]+=[^\n]+)"
    seen = set()

    def everything() -> Iterator[tuple[str, File, bytes | int]]:
        return iter([(path, node, node.read()) for path, node in s.kernel.sysfs.walk() if isinstance(node, File)])

    for path, node, found in s.session.call(everything):
        attr = node.attr
        if isinstance(found, int):
            closed = any(word in attr.name for word in ("mask", "index", "avail"))
            assert found == (INVALID if closed else ACCESS), path
            assert closed or attr.mode == 0o200, path
        elif found:
            seen.add(attr.name)
            assert re.fullmatch(patterns[attr.format] + "\n", found.decode()), (path, found)
    monitored = sysfs.MONITOR_DEVICE_ATTRS | sysfs.MONITOR_CHANNEL_ATTRS
    assert {attr.name for attr in (*sysfs.DEVICE_ATTRS, *sysfs.CHANNEL_ATTRS)} - seen <= monitored | {"numa_node"}


def test_the_bus_s_acpi_device_shows_itself(sys: Callable[..., Sys]) -> None:
    """Paths are padded as \\_SB_.VMOD.VMBS of the SSDT patches that people write against Hyper-V's DSDT."""
    s = sys(host="azure-gen1")
    here = "bus/acpi/devices"
    values = {name: s.read(f"{here}/VMBUS:01/{name}") for name in ("path", "hid", "modalias", "uid", "status")}
    assert values == {
        "path": "\\_SB_.PCI0.SBRG.VMBS\n",
        "hid": "VMBUS\n",
        "modalias": "acpi:VMBUS:\n",
        "uid": "0\n",
        "status": "15\n",
    }
    assert s.kernel.sysfs.readlink(f"{here}/VMBUS:01/driver") == "../../../../../../bus/acpi/drivers/vmbus"
    absent = f"{here}/VMBUS:00"
    assert (s.read(f"{absent}/status"), s.read(f"{absent}/modalias")) == ("0\n", "")
    assert "driver" not in s.names(absent)
    assert s.read(f"{here}/device:07/adr") == "0x00070000\n"
    assert "hid" not in s.names(f"{here}/device:07")


def test_a_storage_controller_shows_its_state(sys: Callable[..., Sys]) -> None:
    s = sys(cpus=64)
    dev = s.device(guids.HV_SCSI_GUID)
    where = f"{DEVICES}/{dev.name}"
    relid = dev.channel.offermsg.child_relid
    assert s.read(f"{where}/id") == f"{relid}\n"
    assert s.read(f"{where}/state") == "3\n"
    assert s.read(f"{where}/uevent") == f"DRIVER=hv_storvsc\nMODALIAS=vmbus:{dev.dev_type.hex()}\n"
    assert s.read(f"{where}/driver_override") == "(null)\n"
    assert s.kernel.sysfs.readlink(f"{where}/driver") == "../../../../../../bus/vmbus/drivers/hv_storvsc"
    channels = {one.offermsg.child_relid: one for one in (dev.channel, *dev.channel.sc_list)}
    assert len(channels) == 4, "64 processors: three sub-channels"
    assert s.names(f"{where}/channels") == sorted(str(number) for number in channels)
    mapping = s.read(f"{where}/channel_vp_mapping")
    assert mapping == "".join(f"{number}:{one.target_cpu}\n" for number, one in channels.items())
    for number, one in channels.items():
        here = f"{where}/channels/{number}"
        assert s.read(f"{here}/cpu") == f"{one.target_cpu}\n"
        assert s.read(f"{here}/subchannel_id") == f"{one.offermsg.sub_channel_index}\n"
        assert s.read(f"{here}/interrupts") == f"{one.interrupts}\n"
        assert s.read(f"{here}/events") == f"{one.sig_events}\n"
        size = one.outbound.ring_datasize
        assert s.read(f"{here}/write_avail") == f"{size}\n", "an empty ring is free"
        assert s.read(f"{here}/read_avail") == "0\n"
        assert s.read(f"{here}/out_mask") in ("0\n", "1\n")
        assert "latency" not in s.names(here), "no monitor"
    assert s.read(f"{where}/nothing") == -2
    assert s.read(where) == -21


def test_a_monitored_device_shows_its_monitor(sys: Callable[..., Sys]) -> None:
    s = sys()
    dev = s.device(guids.HV_SCSI_GUID)
    where = f"{DEVICES}/{dev.name}"
    hidden = sorted(sysfs.MONITOR_DEVICE_ATTRS)
    assert not set(hidden) & set(s.names(where))
    dev.channel.offermsg.monitor_allocated = True
    dev.channel.offermsg.monitorid = 37
    pages = s.kernel.symbol(Vmbus).v.connection.monitor_pages  # type: ignore[attr-defined]  # the object behind it
    for number, page in enumerate(pages):
        memory = s.kernel.mm.memory
        memory.store32(page.gpa + 8 + 8, 0x8000_0020)
        memory.store16(page.gpa + 0x240 + 2 * 37, 100 + number)
        memory.store32(page.gpa + 0x440 + 8 * 37, 0xFF00_0011 + number)
    assert set(hidden) <= set(s.names(where))
    values = {"pending": "-2147483616", "latency": "{}", "conn_id": "{}"}
    for number, side in enumerate(("server", "client")):
        assert s.read(f"{where}/{side}_monitor_pending") == f"{values['pending']}\n"
        assert s.read(f"{where}/{side}_monitor_latency") == f"{100 + number}\n"
        assert s.read(f"{where}/{side}_monitor_conn_id") == f"{17 + number}\n"
    here = f"{where}/channels/{dev.channel.offermsg.child_relid}"
    assert s.read(f"{here}/monitor_id") == s.read(f"{where}/monitor_id") == "37\n"
    assert s.read(f"{here}/latency") == "101\n"
    assert s.read(f"{here}/pending") == "-2147483616\n"


# writing -------------------------------------------------------------------------------------------------------


def test_the_cpu_of_a_channel_can_be_changed(sys: Callable[..., Sys]) -> None:
    s = sys(host="ws2022/gen2")
    dev = s.device(guids.HV_SCSI_GUID)
    file = f"{DEVICES}/{dev.name}/channels/{dev.channel.offermsg.child_relid}/cpu"
    old = dev.channel.target_cpu
    new = (old + 1) % 4
    assert s.write(file, f" {new}\n") == 0
    assert dev.channel.target_cpu == new
    assert s.read(file) == f"{new}\n"
    for text, error in (("", IO), ("x", IO), ("-1", IO), ("4096", INVALID), ("99999", INVALID)):
        assert s.write(file, text) == error, text
    assert s.read(file) == f"{new}\n"
    idle = s.device(guids.HV_KVP_GUID)
    closed = f"{DEVICES}/{idle.name}/channels/{idle.channel.offermsg.child_relid}/cpu"
    assert s.write(closed, "1") == IO, "the channel is not open"
    assert s.write(file.replace("/cpu", "/events"), "1") == ACCESS


def test_an_old_host_cannot_move_channels(sys: Callable[..., Sys]) -> None:
    s = sys(host="ws2016/gen2")
    dev = s.device(guids.HV_SCSI_GUID)
    assert s.write(f"{DEVICES}/{dev.name}/channels/{dev.channel.offermsg.child_relid}/cpu", "1") == IO


def test_unbinding_and_binding(sys: Callable[..., Sys]) -> None:
    s = sys()
    dev = s.device(guids.HV_SCSI_GUID)
    other = s.device(guids.HV_KVP_GUID)
    driver = f"{DRIVERS}/hv_storvsc"
    assert s.write(f"{driver}/bind", dev.name) == BUSY
    assert s.write(f"{driver}/bind", other.name) == NO_DEVICE, "not its class"
    assert s.write(f"{driver}/bind", "nobody\n") == NO_DEVICE
    assert s.write(f"{driver}/unbind", other.name) == NO_DEVICE
    assert s.write(f"{driver}/unbind", dev.name + "\n") == 0
    assert dev.driver is None
    assert "driver" not in s.names(f"{DEVICES}/{dev.name}")
    assert dev.name not in s.names(driver)
    assert s.read(f"{DEVICES}/{dev.name}/state") == "2\n"
    assert s.read(f"{DEVICES}/{dev.name}/out_read_index") == INVALID
    assert s.write(f"{driver}/unbind", dev.name) == NO_DEVICE
    assert s.write(f"{driver}/bind", dev.name) == 0
    assert s.read(f"{DEVICES}/{dev.name}/state") == "3\n"
    assert dev.name in s.names(driver)
    assert s.read(f"{driver}/bind") == ACCESS


def test_a_driver_takes_the_classes_it_is_given(sys: Callable[..., Sys]) -> None:
    s = sys()
    dev = s.device(guids.HV_KVP_GUID)
    probed: list[str] = []

    def probe(device: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        probed.append(device.name)
        return 0

    s.session.call(s.kernel.symbol(Vmbus).vmbus_driver_register, HvDriver("any", (), probe), "any")
    driver = f"{DRIVERS}/any"
    guid = pUl(guids.HV_KVP_GUID)
    assert s.write(f"{driver}/new_id", guid[:-1]) == INVALID
    assert s.write(f"{driver}/remove_id", guid) == NO_DEVICE
    assert s.write(f"{driver}/new_id", guid.upper() + " and more\n") == 0
    assert probed == [dev.name]
    assert s.write(f"{driver}/new_id", guid) == EXISTS
    assert s.write(f"{driver}/remove_id", guid + "\n") == 0
    assert dev.driver is not None, "a bound device stays bound"
    assert s.write(f"{driver}/unbind", dev.name) == 0
    assert s.write(f"{driver}/bind", dev.name) == NO_DEVICE


def test_driver_override_decides(sys: Callable[..., Sys]) -> None:
    s = sys()
    dev = s.device(guids.HV_SCSI_GUID)
    file = f"{DEVICES}/{dev.name}/driver_override"
    assert s.write(f"{DRIVERS}/hv_storvsc/unbind", dev.name) == 0
    assert s.write(file, "vfio\nignored") == 0
    assert s.read(file) == "vfio\n"
    assert s.write(f"{DRIVERS}/hv_storvsc/bind", dev.name) == NO_DEVICE
    assert s.write("bus/vmbus/drivers_probe", dev.name) == 0
    assert dev.driver is None
    assert s.write(file, b"x" * 4095) == INVALID
    assert s.read(file) == "vfio\n"
    assert s.write(file, "\n") == 0
    assert s.read(file) == "(null)\n"
    assert s.write("bus/vmbus/drivers_probe", dev.name) == 0
    assert dev.driver is not None
    assert s.write("bus/vmbus/drivers_probe", "nobody") == NO_DEVICE


def test_devices_can_be_left_alone(sys: Callable[..., Sys]) -> None:
    s = sys()
    assert s.write("bus/vmbus/drivers_autoprobe", "0\n") == 0
    assert s.read("bus/vmbus/drivers_autoprobe") == "0\n"
    driver = HvDriver("late", [HvVmbusDeviceId(guids.HV_KVP_GUID)], lambda dev, dev_id: 0)
    s.session.call(s.kernel.symbol(Vmbus).vmbus_driver_register, driver, "late")
    s.session.call(s.kernel.async_.async_synchronize_full)
    assert driver.devices == []
    assert s.write("bus/vmbus/drivers_autoprobe", "yes") == 0
    assert s.read("bus/vmbus/drivers_autoprobe") == "1\n"
    assert s.write(f"{DRIVERS}/late/bind", s.device(guids.HV_KVP_GUID).name) == 0
    assert s.read("bus/vmbus/hibernation") == "0\n"
    assert s.write("bus/vmbus/hibernation", "1") == ACCESS


def test_events_that_user_space_makes_up(sys: Callable[..., Sys]) -> None:
    s = sys()
    dev = s.device(guids.HV_KVP_GUID)
    file = f"{DEVICES}/{dev.name}/uevent"
    heard: list[Any] = []
    s.kernel.driver.listeners.append(lambda action, device, env: heard.append((action, device.name, dict(env))))
    uuid = "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed"
    assert s.write(file, "change\n") == 0
    assert s.write(file, f"add {uuid} A=1 B=abc") == 0
    assert [one[:2] for one in heard] == [("change", dev.name), ("add", dev.name)]
    assert heard[0][2]["SYNTH_UUID"] == "0"
    extra = {key: value for key, value in heard[1][2].items() if key.startswith("SYNTH")}
    assert extra == {"SYNTH_UUID": uuid, "SYNTH_ARG_A": "1", "SYNTH_ARG_B": "abc"}
    path = s.kernel.driver.dev_path(dev)
    for text, why in (
        ("", "unknown uevent action string"),
        ("explode", "unknown uevent action string"),
        (f"add {uuid[:-1]}", "incorrect uevent action arguments"),
        (f"add {uuid} A", "incorrect uevent action arguments"),
        (f"add {uuid} A=", "incorrect uevent action arguments"),
    ):
        assert s.write(file, text) == INVALID
        assert s.lines[-2:] == [
            f"synth uevent: /{path}: {why}",
            f"vmbus {dev.name}: uevent: failed to send synthetic uevent: -22",
        ]
    assert s.write("bus/vmbus/uevent", "add") == 0
    assert s.write(f"{DRIVERS}/hv_storvsc/uevent", "nothing") == INVALID
    assert len(heard) == 2


def test_module_parameters(sys: Callable[..., Sys], kernel_source: Path) -> None:
    s = sys()
    declared = re.findall(
        r"module_param\((\w+), (\w+), (\w+)\)", (kernel_source / "drivers/hv/connection.c").read_text()
    )
    assert declared == [("max_version", "uint", "S_IRUGO")]
    assert s.names("module/hv_vmbus/parameters") == ["max_version"]
    assert s.read("module/hv_vmbus/parameters/max_version") == f"{0x0005_0003}\n"
    assert s.write("module/hv_vmbus/parameters/max_version", "1") == ACCESS
    assert s.kernel.sysfs.readlink(f"{DRIVERS}/hv_storvsc/module") == "../../../../module/hv_storvsc"
    assert s.names("module/hv_storvsc") == ["drivers", "parameters", "uevent"], "built in"
    level = "module/hv_storvsc/parameters/logging_level"
    old = s.read(level)
    for text, error in (("2147483648", -34), ("x", INVALID), ("", INVALID)):
        assert s.write(level, text) == error
    assert s.read(level) == old
    assert s.write(level, "-0x10\n") == 0
    assert s.read(level) == "-16\n"


# debugfs -------------------------------------------------------------------------------------------------------


def test_there_is_no_testing_without_its_option(sys: Callable[..., Sys]) -> None:
    s = sys()
    assert s.kernel.sysfs.listdir("kernel/debug/hyperv") == -2


def test_delays_are_set_and_read(sys: Callable[..., Sys], testing: Path) -> None:
    s = sys(config=testing)
    dev = s.device(guids.HV_SCSI_GUID)
    assert s.names("kernel/debug/hyperv") == s.names(DEVICES)
    where = f"kernel/debug/hyperv/{dev.name}"
    assert s.names(where) == ["delay", "fuzz_test_state"]
    interrupt, message = (f"{where}/delay/{attr.name}" for attr in hv_debugfs.DELAY_FILES)
    for text, value in (("1000", 1000), ("0x10\n", 16), ("010", 8), ("+7", 7), ("0", 0)):
        assert s.write(interrupt, text) == 0, text
        assert s.read(interrupt) == f"{value}\n"
    assert s.write(message, "5") == 0
    assert (dev.channel.fuzz_testing_interrupt_delay, dev.channel.fuzz_testing_message_delay) == (0, 5)
    for text in ("1001", "-1", "", "1 ", "08", "zero", "0x"):
        assert s.write(message, text) == INVALID, text
    assert s.write(message, "99999999999999999999") == -34
    assert s.read(message) == "5\n"
    assert s.write(f"{where}/fuzz_test_state", "2") == INVALID
    assert s.write(f"{where}/fuzz_test_state", "1\n") == 0
    assert s.read(f"{where}/fuzz_test_state") == "1\n"


def io_time(s: Sys) -> int:
    """Virtual time of one read of the disk, 100 ns units."""
    (disk, *_) = s.kernel.block.disks
    clock = s.session.machine.clock

    def read() -> int:
        start = clock.now
        s.kernel.block.read(disk, 0, 8)
        return clock.now - start

    took: int = s.session.call(read)
    return took


def test_delays_take_effect(sys: Callable[..., Sys], testing: Path) -> None:
    s = sys(config=testing)
    dev = s.device(guids.HV_SCSI_GUID)
    where = f"kernel/debug/hyperv/{dev.name}"
    before = io_time(s)
    assert io_time(s) - before < 100
    assert s.write(f"{where}/delay/fuzz_test_buffer_interrupt_delay", "900") == 0
    assert s.write(f"{where}/delay/fuzz_test_message_delay", "50") == 0
    assert io_time(s) - before < 100, "not switched on"
    assert s.write(f"{where}/fuzz_test_state", "1") == 0
    # One interrupt; the reader looks once for the packet and steps over it.
    assert io_time(s) - before == pytest.approx(10 * (900 + 50), abs=10 * 2 * 50 + 10)
    assert s.write(f"{where}/delay/fuzz_test_buffer_interrupt_delay", "0") == 0
    assert 10 * 50 <= io_time(s) - before < 10 * 900
    assert s.write(f"{where}/fuzz_test_state", "0") == 0
    assert io_time(s) - before < 100


def test_a_device_s_delays_hold_for_its_sub_channels(sys: Callable[..., Sys], testing: Path) -> None:
    s = sys(config=testing, cpus=64)
    dev = s.device(guids.HV_SCSI_GUID)
    debug = s.kernel.symbol(Vmbus).v.debug  # type: ignore[attr-defined]  # the object behind it
    where = f"kernel/debug/hyperv/{dev.name}"
    for name, text in (("fuzz_test_state", "1"), ("delay/fuzz_test_message_delay", "70")):
        assert s.write(f"{where}/{name}", text) == 0
    clock = s.session.machine.clock

    def delayed(delay: Callable[[Any], None]) -> int:
        before = clock.now
        delay(dev.channel.sc_list[-1])
        return clock.now - before

    assert s.session.call(delayed, debug.message_delay) == 700
    assert s.session.call(delayed, debug.interrupt_delay) == 0


def test_the_files_of_a_device_go_with_it(sys: Callable[..., Sys], testing: Path) -> None:
    s = sys(config=testing)
    dev = s.device(guids.HV_KVP_GUID)
    offered = next(
        one
        for one in s.session.server.devices
        if dev.channel.offermsg.child_relid in [channel.relid for channel in one.channels]
    )
    s.session.server.rescind(offered)
    s.session.machine.run(limit=10_000_000)
    assert dev.name not in s.names(DEVICES)
    assert dev.name not in s.names("kernel/debug/hyperv")
