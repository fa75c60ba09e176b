"""Driver and device together: whole guests boot, read and write disks, meet hostile packets, hot plug and old hosts."""

from __future__ import annotations

import gzip
import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.abi.wire import Guid
from hvkernel.api.guest.block import BlockError
from hvkernel.api.host import DeviceRegistry, DeviceSlot, DiskImage, StorageUnit
from hvkernel.boot import plugins as plugin_loading
from hvkernel.boot import session as composition
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session
from hvkernel.host.vmbus.devices import DeviceTable
from hvkernel_storvsc import vsp
from hvkernel_storvsc.vsc_io import StorvscDevice
from hvkernel_storvsc.vsp_protocol import State

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
DEBIAN = "debian12-6.1.192-cloud-amd64"


class Booted:
    """A guest that was booted, with its controllers at hand."""

    def __init__(self, session: Session, controllers: dict[str, vsp.StorageController], path: Path) -> None:
        self.session = session
        self.controllers = controllers
        self.path = path
        self.kernel: Any = session.kernel

    @property
    def log(self) -> list[str]:
        return [line.text for line in self.kernel.printk.log]

    def lines(self, part: str) -> list[str]:
        return [text for text in self.log if part in text]

    @property
    def disk(self) -> Any:
        return self.kernel.block.disks[0]

    @property
    def controller(self) -> vsp.StorageController:
        """The one the first disk is on."""
        return next(c for c in self.controllers.values() if c.units)

    @property
    def driver_side(self) -> StorvscDevice:
        device: StorvscDevice = self.sdev.host.hostdata.dev.driver_data
        return device

    @property
    def sdev(self) -> Any:
        """The first unit: which host number its controller got depends on who was probed first."""
        return next(sdev for host in self.kernel.scsi.hosts for sdev in host.devices)

    def call(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        return self.session.call(fn, *arguments)

    def settle(self) -> None:
        """Let everything that is under way end."""
        self.call(self.kernel.sched.msleep, 500)

    def sha256(self) -> str:
        digest = hashlib.sha256()

        def read() -> None:
            for at in range(0, self.disk.capacity, 1024):
                digest.update(self.kernel.block.read(self.disk, at, min(1024, self.disk.capacity - at)))

        self.call(read)
        return digest.hexdigest()

    def execute(self, sdev: Any, cdb: bytes, **options: Any) -> Any:
        return self.call(lambda: self.kernel.scsi.execute(sdev, cdb, **options))


class Boots:
    """Boots guests from the real configurations."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp_path = tmp_path
        self.monkeypatch = monkeypatch
        self.sessions: list[Session] = []
        self.images: list[DiskImage] = []

    def __call__(
        self,
        config: str = DEBIAN,
        *,
        size: int = 4 << 20,
        units: tuple[StorageUnit, ...] = (),
        parameters: dict[str, Any] | None = None,
        boot: bool = True,
        **options: Any,
    ) -> Booted:
        """Boot *config* from a random image; *units* and *parameters* change the controller that the disk is on."""
        text = self.tmp_path / f"{config}.config"
        text.write_bytes(gzip.decompress((CONFIGS / f"{config}.config.gz").read_bytes()))
        path = self.tmp_path / "root.img"
        path.write_bytes(random.Random(size).randbytes(size))
        controllers: dict[str, vsp.StorageController] = {}

        class Registry:
            """Remembers the controllers that the plugin makes, and gives them the test's parameters."""

            def __init__(self, inner: DeviceRegistry) -> None:
                self.inner = inner

            def register(self, class_guid: Guid, factory: Any, *, owner: str = "") -> None:
                def make(slot: DeviceSlot) -> Any:
                    given = dict(slot.parameters)
                    if given.get("units"):
                        given.update(parameters or {})
                        given["units"] = (*given["units"], *units)
                    changed = DeviceSlot(slot.class_guid, slot.instance_guid, slot.name, slot.services, given)
                    controllers[slot.name] = made = factory(changed)
                    return made

                self.inner.register(
                    class_guid, make if class_guid in (HV_SCSI_GUID, HV_IDE_GUID) else factory, owner=owner
                )

        loaded = plugin_loading.load()
        real = DeviceTable
        self.monkeypatch.setattr(composition, "DeviceTable", lambda: _Wrapped(real(), Registry))
        try:
            session = composition.compose(read_request(config=text, disk=path, **options), loaded)
        finally:
            self.monkeypatch.setattr(composition, "DeviceTable", real)
        assert isinstance(session, Session), session
        self.sessions.append(session)
        if boot:
            session.boot()
        return Booted(session, controllers, path)

    def image(self, size: int = 1 << 20) -> DiskImage:
        path = self.tmp_path / f"extra{len(self.images)}.img"
        path.write_bytes(random.Random(len(self.images)).randbytes(size))
        self.images.append(DiskImage.open(path))
        return self.images[-1]

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        for image in self.images:
            image.close()


class _Wrapped:
    """The device table, with the plugin's registration going through the test's registry."""

    def __init__(self, table: Any, registry: Any) -> None:
        self._table = table
        self._registry = registry(table)

    def register(self, class_guid: Guid, factory: Any, *, owner: str = "") -> None:
        self._registry.register(class_guid, factory, owner=owner)

    def maker(self, class_guid: Guid) -> Any:
        return self._table.maker(class_guid)


@pytest.fixture
def boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boots]:
    made = Boots(tmp_path, monkeypatch)
    yield made
    made.close()


# data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (DEBIAN, {}),
        (DEBIAN, {"jit": True}),
        (DEBIAN, {"policy": "random:3"}),
        ("debian12-6.1.192-amd64", {"host": "ws2022/gen1"}),
        ("debian12-6.1.192-amd64", {"host": "ws2012r2/gen1"}),
        ("alpine-virt.x86", {}),
        ("debian12-6.1.192-arm64", {}),
        ("debian12bpo-6.12.117-arm64-16k", {}),
        ("debian12-6.1.192-arm64", {"page_size": "64K"}),
    ],
    ids=["4K", "jit", "random", "gen1-ide", "gen1-2012r2", "x86-32", "arm64-4K", "arm64-16K", "arm64-64K"],
)
def test_every_byte_is_read_and_written(boots: Boots, config: str, options: dict[str, Any]) -> None:
    guest = boots(config, **options)
    assert guest.kernel.outcome.state == "up", guest.log[-5:]
    before = guest.path.read_bytes()
    assert guest.sha256() == hashlib.sha256(before).hexdigest()
    fresh = random.Random(1).randbytes(777 * 512)
    guest.call(guest.kernel.block.write, guest.disk, 1001, fresh)
    guest.call(guest.kernel.block.flush, guest.disk)
    assert guest.path.read_bytes() == before[: 1001 * 512] + fresh + before[1778 * 512 :]
    guest.call(guest.kernel.block.discard, guest.disk, 8, 16)
    guest.session.close()
    assert guest.path.read_bytes()[8 * 512 : 24 * 512] == bytes(8192)
    assert [f for f in guest.session.machine.findings if f.kind.startswith("storvsp")] == []


def test_the_log_of_a_disk(boots: Boots) -> None:
    guest = boots(size=64 << 20)
    assert guest.lines("scsi 0:0:0:0") == [
        "scsi 0:0:0:0: Direct-Access     Msft     Virtual Disk     1.0  PQ: 0 ANSI: 5"
    ]
    for text in (
        "hv_vmbus: registering driver hv_storvsc",
        "scsi host0: storvsc_host_t",
        "sd 0:0:0:0: [sda] 131072 512-byte logical blocks: (67.1 MB/64.0 MiB)",
        "sd 0:0:0:0: [sda] 4096-byte physical blocks",
        "sd 0:0:0:0: [sda] Write Protect is off",
        "sd 0:0:0:0: [sda] Write cache: enabled, read cache: enabled, supports DPO and FUA",
        "sd 0:0:0:0: [sda] Attached SCSI disk",
    ):
        assert text in guest.log
    assert guest.lines("hv_storvsc ") == []


def test_jit_changes_nothing_that_can_be_seen(boots: Boots) -> None:
    runs = []
    for jit in (False, True):
        guest = boots(jit=jit)
        runs.append((guest.kernel.printk.log, guest.sha256(), guest.session.machine.clock.now))
    assert runs[0] == runs[1]


# versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "config", "version", "level", "no_write_same"),
    [
        ("ws2012", "debian12-6.1.192-amd64", 0x501, 6, True),
        ("ws2012r2", "debian12-6.1.192-amd64", 0x600, 6, True),
        ("ws2016", DEBIAN, 0x602, 6, False),
        ("azure-gen2", DEBIAN, 0x602, 6, False),
    ],
)
def test_the_newest_version_of_both_is_used(
    boots: Boots, host: str, config: str, version: int, level: int, no_write_same: bool
) -> None:
    guest = boots(config, host=host)
    assert guest.controller.version == version
    sdev = guest.sdev
    assert (sdev.scsi_level, sdev.no_write_same, sdev.timeout) == (level, no_write_same, 180 * guest.kernel.timers.HZ)
    assert guest.controller.protocol == f"{version >> 8}.{version & 0xFF}"


def test_a_kernel_of_2021_speaks_short_to_a_host_of_2009(boots: Boots) -> None:
    guest = boots("wsl2-5.15.54-Microsoft-config-wsl", host="ws2008r2", boot=False)
    seen: list[tuple[int, bytes]] = []
    real = vsp.StorageController.on_packet

    def on_packet(self: vsp.StorageController, channel: Any, packet: Any) -> None:
        if packet.payload[0] == 3:
            seen.append((len(packet.payload), packet.payload))
        real(self, channel, packet)

    boots.monkeypatch.setattr(vsp.StorageController, "on_packet", on_packet)
    guest.session.boot()
    assert guest.kernel.outcome.state == "up", guest.log[-5:]
    assert guest.controller.version == 0x402
    assert {size for size, _ in seen} == {48}
    assert {struct.unpack_from("<H", payload, 12)[0] for _, payload in seen} == {36}
    assert {payload[12 + 9] for _, payload in seen} == {18}
    assert guest.sha256() == hashlib.sha256(guest.path.read_bytes()).hexdigest()


def test_a_host_without_a_common_version(boots: Boots) -> None:
    guest = boots(parameters={"protocols": ("2.0", "4.2")})
    assert guest.kernel.outcome.state == "hung"
    assert guest.lines("Obsolete Hyper-V version")
    assert guest.lines("probe with driver hv_storvsc failed with error -22") or guest.lines("failed with error -22")


# sub-channels --------------------------------------------------------------------------------------------------


def test_sub_channels_carry_commands(boots: Boots) -> None:
    guest = boots(parameters={"subchannels": 3})
    assert guest.kernel.outcome.state == "up"
    side = guest.driver_side
    assert side.num_sc == 3
    guest.settle()
    channels = [side.device.channel, *side.device.channel.sc_list]
    assert len(channels) == 4
    assert side.alloced_cpus == sorted({channel.target_cpu for channel in channels})
    assert guest.sha256() == hashlib.sha256(guest.path.read_bytes()).hexdigest()
    assert sum(channel.intr_out_empty > 0 for channel in channels) >= 2, "more than one was used"
    assert guest.lines("Failed to") == []


def test_one_cpu_asks_for_none(boots: Boots) -> None:
    guest = boots(parameters={"subchannels": 3}, cpus=1)
    assert guest.driver_side.num_sc == 0
    assert guest.driver_side.device.channel.sc_list == []


def test_a_channel_that_moves_to_another_cpu(boots: Boots) -> None:
    guest = boots(parameters={"subchannels": 2})
    guest.settle()
    side = guest.driver_side
    primary = side.device.channel
    old = primary.target_cpu
    new = next(cpu for cpu in range(4) if cpu not in side.alloced_cpus)
    change = primary.change_target_cpu_callback
    assert change is not None

    def move() -> None:
        change(primary, old, new)
        primary.target_cpu = new

    guest.call(move)
    assert new in side.alloced_cpus
    assert side.stor_chns[new] is primary
    assert (old in side.alloced_cpus) == any(sc.target_cpu == old for sc in primary.sc_list)
    assert guest.sha256() == hashlib.sha256(guest.path.read_bytes()).hexdigest()


# units ---------------------------------------------------------------------------------------------------------


def test_a_dvd_drive_without_medium(boots: Boots) -> None:
    guest = boots()
    assert "scsi 0:0:0:2: CD-ROM            Msft     Virtual DVD-ROM  1.0  PQ: 0 ANSI: 0" in guest.log
    sdev = guest.kernel.scsi.scsi_device_lookup(guest.sdev.host, 0, 0, 2)
    result = guest.execute(sdev, struct.pack(">BBIBHB", 0x28, 0, 2, 0, 2, 0), read=4096)
    assert result.check_condition
    assert guest.log[-1].endswith(" cmd 0x28 status: scsi 0x2 srb 0x84 hv 0xc0000001"), guest.log[-1]
    assert guest.log[-1].startswith("hv_storvsc f8b3781a-1e82-4818-a1c3-63d806ec15bb: tag#")


def test_failures_are_logged_ten_in_five_seconds(boots: Boots) -> None:
    guest = boots()
    sdev = guest.sdev
    for _ in range(15):
        assert guest.execute(sdev, bytes([0xFF, 0, 0, 0, 0, 0])).check_condition
    assert len(guest.lines("cmd 0xff status: scsi 0x2 srb 0x86 hv 0xc0000001")) == 10
    guest.call(guest.kernel.sched.msleep, 6000)
    guest.execute(sdev, bytes([0xFF, 0, 0, 0, 0, 0]))
    assert guest.lines("callbacks suppressed") == ["storvsc_on_io_completion: 5 callbacks suppressed"]
    assert len(guest.lines("cmd 0xff")) == 11


def test_what_hosts_do_not_handle_counts_as_success(boots: Boots) -> None:
    guest = boots()
    sdev = guest.sdev
    before = len(guest.log)
    for cdb in (
        bytes([0x12, 1, 0x80, 0, 64, 0]),
        bytes([0x1A, 0, 0x1C, 0, 64, 0]),
        bytes([0x5A, 0, 0x1C] + [0] * 5 + [64, 0]),
    ):
        assert guest.execute(sdev, cdb, read=64).result == 0
    assert len(guest.log) == before


def test_hot_plug(boots: Boots) -> None:
    guest = boots()
    image = boots.image()
    guest.session.machine.call(guest.controller.attach, StorageUnit(image=image, lun=5), side="host")
    guest.settle()
    assert [disk.name for disk in guest.kernel.block.disks] == ["sda", "sdb"]
    read = guest.call(guest.kernel.block.read, guest.kernel.block.disks[1], 7, 3)
    assert read == image.pread(3 * 512, 7 * 512)
    guest.session.machine.call(guest.controller.detach, 0, 0, 5, side="host")
    guest.settle()
    assert [disk.name for disk in guest.kernel.block.disks] == ["sda"]
    assert guest.sha256() == hashlib.sha256(guest.path.read_bytes()).hexdigest()


def test_a_disk_that_becomes_shorter_fails_its_reads(boots: Boots) -> None:
    guest = boots()
    guest.path.write_bytes(guest.path.read_bytes()[: 1 << 20])
    with pytest.raises(BlockError):
        guest.call(guest.kernel.block.read, guest.disk, 4096, 8)
    assert guest.lines("cmd 0x28 status: scsi 0x2 srb 0x84 hv 0xc0000001")
    assert guest.call(guest.kernel.block.read, guest.disk, 0, 8) == guest.path.read_bytes()[:4096]


# the host misbehaves -------------------------------------------------------------------------------------------


def host_sends(guest: Booted, payload: bytes, trans_id: int, kind: int = 6) -> None:
    channel = guest.controller._primary
    assert channel is not None
    guest.session.machine.call(channel.send_packet, kind, payload, trans_id, side="host")
    guest.settle()


def test_packets_that_no_host_should_send(boots: Boots) -> None:
    guest = boots()
    name = "hv_storvsc f8b3781a-1e82-4818-a1c3-63d806ec15bb: "
    before = len(guest.log)
    host_sends(guest, struct.pack("<III", 1, 0, 0) + bytes(52), 0)
    host_sends(guest, struct.pack("<III", 12, 0, 0) + bytes(52), 0)
    host_sends(guest, struct.pack("<III", 1, 0, 0) + bytes(52), 4242)
    host_sends(guest, bytes(32), 77)
    host_sends(guest, b"", 0)
    host_sends(guest, struct.pack("<III", 99, 0, 0) + bytes(52), 0)
    assert guest.log[before:] == [
        f"{name}Invalid packet with ID of 0",
        f"{name}Invalid packet with ID of 0",
        f"{name}Incorrect transaction ID",
        f"{name}Invalid pkt: id=77, len=32, minlen=64",
        f"{name}Invalid pkt: id=0, len=0, minlen=4",
    ]
    assert guest.sha256() == hashlib.sha256(guest.path.read_bytes()).hexdigest()


def test_capacity_changed_means_look_again(boots: Boots) -> None:
    """A check condition 2a/09 is answered with a rescan, and the command is sent once more."""
    guest = boots()
    sdev = guest.sdev
    unit = guest.controller.units[0, 0, 0]
    from hvkernel_storvsc.vsp_scsi import CHECK_CONDITION, SRB_ERROR, Outcome, sense_data

    told: list[int] = []
    real = type(unit).execute

    def execute(self: Any, command: Any) -> Outcome:
        if command.cdb[0] == 0x28 and not told:
            told.append(1)
            return Outcome(CHECK_CONDITION, SRB_ERROR, sense_data(6, (0x2A, 0x09)))
        return real(self, command)

    boots.monkeypatch.setattr(type(unit), "execute", execute)
    data = guest.call(guest.kernel.block.read, guest.disk, 0, 1)
    assert told == [1]
    assert data == guest.path.read_bytes()[:512]
    assert sdev in sdev.host.devices


def test_bus_reset(boots: Boots) -> None:
    guest = boots()
    driver = guest.sdev.host.hostt
    sdev = guest.sdev

    class Stuck:
        device = sdev

    assert driver.eh_timed_out(Stuck())
    assert guest.call(driver.eh_host_reset_handler, Stuck()) == 0x2002


# the end -------------------------------------------------------------------------------------------------------


def test_a_rescinded_controller_takes_its_disks_with_it(boots: Boots) -> None:
    guest = boots(units=(StorageUnit("dvd", lun=1),))
    guest.disk.driver.wce = False
    guest.session.machine.call(guest.controller.slot.services.rescind, side="host")
    guest.settle()
    assert [disk.name for disk in guest.kernel.block.disks] == []
    assert guest.controller.state is State.BEGIN
    assert all(host.hostt.name != "storvsc_host_t" or not host.devices for host in guest.kernel.scsi.hosts)
    assert guest.lines("BUG") == []
    assert [f.kind for f in guest.session.machine.findings if f.side == "guest"] == [], "rings freed, no longer shared"


def test_a_rescinded_controller_with_a_write_cache_is_never_let_go(boots: Boots) -> None:
    """The ring refuses the flush with -ENODEV, storvsc_queuecommand() answers 0, and the timer starts for ever."""
    guest = boots()
    guest.session.machine.call(guest.controller.slot.services.rescind, side="host")
    guest.settle()
    assert [disk.name for disk in guest.kernel.block.disks] == []
    assert guest.log[-1].endswith("[sda] Synchronizing SCSI cache")
    assert [cmd.cmnd[0] for cmd in guest.sdev.host.inflight.values()] == [0x35]


def test_the_same_seed_gives_the_same_run(boots: Boots) -> None:
    runs = []
    for _ in range(2):
        guest = boots(policy="random:7", seed=3, parameters={"subchannels": 3})
        runs.append((guest.kernel.printk.log, guest.sha256(), guest.session.machine.clock.now))
    assert runs[0] == runs[1]
