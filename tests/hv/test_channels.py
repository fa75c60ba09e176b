"""Channels from the guest's side against the real server: open, close, share, rescind, move, bad messages."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VmbusChannelMessageType, VmbusChannelState
from hvkernel.api.guest.hyperv import (
    VMBUS_NO_RQSTOR,
    VMBUS_RQST_ERROR,
    HvDevice,
    HvDriver,
    HvMpbArray,
    HvPageBuffer,
    HvVmbusDeviceId,
    Vmbus,
    VmbusChannel,
    VmbusGpadl,
)
from hvkernel.boot.session import Session
from hvkernel.host.vmbus.devices import OfferedDevice
from hvkernel.hv import channel as channel_c
from hvkernel.hv import vmbus_drv, vmbus_isr
from hvkernel.hv.exports import VmbusExports
from hvkernel.hv.hyperv_vmbus import HvVmbus

Compose = Callable[..., Session]
SECOND = 10_000_000


class Probe:
    """A driver that keeps what it was probed with."""

    def __init__(self, guid: bytes, name: str = "probe") -> None:
        self.devices: list[HvDevice] = []
        self.removed: list[HvDevice] = []
        self.driver = HvDriver(name, [HvVmbusDeviceId(guid)], self.probe, remove=self.removed.append)

    def probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        assert dev_id.guid == dev.dev_type
        self.devices.append(dev)
        return 0


class Bench:
    """A guest that is up, with a driver bound to a device that the host offers but does not model."""

    def __init__(self, session: Session, guid: bytes = guids.HV_KVP_GUID) -> None:
        session.boot()
        assert session.kernel.outcome is not None
        assert session.kernel.outcome.state == "up"
        self.session = session
        self.exports = session.kernel.symbol(Vmbus)
        assert isinstance(self.exports, VmbusExports)
        self.v: HvVmbus = self.exports.v
        self.driver = Probe(guid)
        assert session.call(self.exports.vmbus_driver_register, self.driver.driver, "probe") == 0
        session.call(session.kernel.async_.async_synchronize_full)
        (self.device,) = self.driver.devices
        self.channel = self.device.channel

    def open(self, size: int = 16384, userdata: bytes = b"") -> int:
        ring = self.exports.VMBUS_RING_SIZE(size)
        return int(
            self.session.call(self.exports.vmbus_open, self.channel, ring, ring, userdata, lambda context: None, None)
        )

    def close(self) -> None:
        self.session.call(self.exports.vmbus_close, self.channel)

    def state(self) -> VmbusChannelState:
        return self.channel.state

    def offered(self, channel: VmbusChannel | None = None) -> OfferedDevice:
        relid = (channel or self.channel).offermsg.child_relid
        return next(one for one in self.session.server.devices if relid in relids(one))

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.session.kernel.printk.log]

    def gpadls(self) -> int:
        return len({entry.key for entry in self.session.machine.ledger.entries() if entry.via.startswith("gpadl")})

    def run(self) -> None:
        self.session.machine.run(limit=SECOND)


def relids(device: OfferedDevice) -> list[int]:
    return [channel.relid for channel in device.channels]


@pytest.fixture
def bench(guest: Compose) -> Callable[..., Bench]:
    return lambda guid=guids.HV_KVP_GUID, **options: Bench(guest(**options), guid)


@pytest.mark.parametrize("page_size", ["4K", "16K", "64K"])
def test_open_close_and_open_again(bench: Callable[..., Bench], page_size: str) -> None:
    b = bench(arch="arm64", page_size=page_size)
    before = b.gpadls()
    for _ in range(3):
        assert b.open() == 0
        assert b.state() == VmbusChannelState.CHANNEL_OPENED_STATE
        assert b.gpadls() == before + 1
        assert b.open() == -22, "an open channel cannot be opened"
        b.close()
        assert b.state() == VmbusChannelState.CHANNEL_OPEN_STATE
        assert b.gpadls() == before
    assert b.session.kernel.mm.leaks() is not None
    assert "hv_vmbus: registering driver probe" in b.lines


def test_too_much_user_data_and_rings_that_are_no_pages(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.open(userdata=bytes(121)) == -22
    assert b.session.call(channel_c.vmbus_alloc_ring, b.v, b.channel, 4095, 4096) == -22
    assert b.channel.ringbuffer_page is None


def test_a_failed_open_gives_everything_back(bench: Callable[..., Bench]) -> None:
    b = bench(host="ws2016")
    mm = b.session.kernel.mm
    free = mm.nr_free_pages()
    assert b.open(64 << 20) == -12, "no allocation is that large"
    pages = 4096
    while pages:
        held = [0x2000] * pages
        if b.session.call(b.exports.vmbus_establish_gpadl, b.channel, held, pages * 4096, VmbusGpadl()):
            pages //= 2
    assert b.open(1 << 20) == -122, "the host has no room for the rings"
    assert b.state() == VmbusChannelState.CHANNEL_OPEN_STATE
    assert b.channel.ringbuffer_page is None
    assert b.channel.outbound.ring_buffer is None
    assert mm.nr_free_pages() == free


def test_shared_buffers_with_bodies(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.open() == 0
    page = b.session.call(b.session.kernel.mm.alloc_pages, 8)
    gpadl = VmbusGpadl()
    assert b.session.call(b.exports.vmbus_establish_gpadl, b.channel, page.gpa, 256 * 4096, gpadl) == 0
    assert gpadl.gpadl_handle >= 0xE1E10
    assert gpadl.size == 256 * 4096
    entries = [e for e in b.session.machine.ledger.entries() if e.via.startswith("gpadl")]
    assert sum(e.pages for e in entries if e.gpa >= page.gpa and e.gpa < page.gpa + 256 * 4096) == 256
    handle = gpadl.gpadl_handle
    assert b.session.call(b.exports.vmbus_teardown_gpadl, b.channel, gpadl) == 0
    assert gpadl.gpadl_handle == 0
    assert handle not in {e.key for e in b.session.machine.ledger.entries()}


def test_a_host_refuses_more_than_its_limit(bench: Callable[..., Bench]) -> None:
    b = bench(host="ws2016")
    assert b.open() == 0
    # The same pages again and again: the limit counts what is described, not what it lies on.
    pages = [0x2000] * 4096
    status = 0
    for _ in range(26):
        status = b.session.call(b.exports.vmbus_establish_gpadl, b.channel, pages, 4096 * 4096, VmbusGpadl())
        if status:
            break
    assert status == -122
    assert any(line.startswith("hv_vmbus: Failed to establish GPADL: err = 0x") for line in b.lines)


def test_rescind_takes_the_device_away(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.open() == 0
    relid = b.channel.offermsg.child_relid
    b.session.server.rescind(b.offered())
    b.run()
    assert b.driver.removed == [b.device]
    assert b.channel.rescind
    assert b.v.connection.channels is not None
    assert b.v.connection.channels[relid] is None
    assert b.channel not in b.v.connection.chn_list
    assert relid not in b.session.server.by_relid, "the relid was given back"


@pytest.mark.parametrize("lost", ["GPADL_HEADER", "GPADL_BODY", "OPENCHANNEL"])
def test_a_rescind_ends_an_open_that_the_host_never_answers(bench: Callable[..., Bench], lost: str) -> None:
    b = bench()
    server, clock, mm = b.session.server, b.session.machine.clock, b.session.kernel.mm
    before = (mm.nr_free_pages(), b.gpadls())
    server.ignore(VmbusChannelMessageType[f"CHANNELMSG_{lost}"])
    clock.at(clock.now + SECOND // 10, lambda: server.rescind(b.offered()))
    assert b.open(1 << 20) == -19
    assert b.state() == VmbusChannelState.CHANNEL_OPEN_STATE
    b.run()
    assert b.driver.removed == [b.device]
    assert b.channel not in b.v.connection.chn_list
    assert not b.v.connection.chn_msg_list
    assert (mm.nr_free_pages(), b.gpadls()) == before


def test_a_rescinded_channel_refuses_packets(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.open() == 0
    b.channel.rescind = True
    send = b.exports.vmbus_sendpacket
    assert b.session.call(send, b.channel, b"late", 1, 6, 0) == -19


def test_packets_reach_the_ring_with_their_transaction_id(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.channel.rqstor_size = 2
    b.channel.next_request_id_callback = lambda channel, addr: b.exports.vmbus_next_request_id(channel, addr)
    b.channel.request_addr_callback = lambda channel, ident: b.exports.vmbus_request_addr(channel, ident)
    assert b.open() == 0
    getid = b.exports.vmbus_sendpacket_getid
    assert b.session.call(getid, b.channel, b"first", 0xAAA, 6, 1) == (0, 1)
    assert b.session.call(getid, b.channel, b"second", 0xBBB, 6, 1) == (0, 2)
    assert b.session.call(getid, b.channel, b"third", 0xCCC, 6, 1)[0] == -11, "no slot left"
    assert b.session.call(getid, b.channel, b"fourth", 0xDDD, 6, 0) == (0, 0xDDD), "no completion, no slot"
    assert b.session.call(b.exports.vmbus_request_addr, b.channel, 2) == 0xBBB
    assert b.session.call(b.exports.vmbus_request_addr, b.channel, 2) == VMBUS_RQST_ERROR
    assert b.session.call(b.exports.vmbus_request_addr_match, b.channel, 1, 5) == 0xAAA, "kept: not that address"
    assert b.session.call(b.exports.vmbus_request_addr, b.channel, 1) == 0xAAA
    assert b.session.call(b.exports.vmbus_request_addr, b.channel, 0) == VMBUS_RQST_ERROR


def test_a_channel_without_requestor(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.session.call(b.exports.vmbus_next_request_id, b.channel, 5) == VMBUS_NO_RQSTOR
    assert b.session.call(b.exports.vmbus_request_addr, b.channel, 5) == VMBUS_NO_RQSTOR


def written(b: Bench, start: int, size: int) -> bytes:
    ring = b.channel.outbound.ring_buffer
    return bytes(ring.read(b.channel.outbound.data_offset + start, size))


def test_gpa_direct_packets_on_the_wire(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.open() == 0
    ring = b.channel.outbound.ring_buffer
    start = ring.load32(0)
    desc = HvMpbArray(len=5000, offset=100, pfn_array=(0x111, 0x222))
    send = b.exports.vmbus_sendpacket_mpb_desc
    assert b.session.call(send, b.channel, desc, 48, b"\x55" * 12, 7) == 0
    wire = written(b, start, 64)
    assert struct.unpack_from("<HHHHQ", wire) == (9, 6, 8, 1, 7)
    assert struct.unpack_from("<IIIIQQ", wire, 16) == (0, 1, 5000, 100, 0x111, 0x222)
    assert wire[48:64] == b"\x55" * 12 + bytes(4)
    start = ring.load32(0)
    pages = [HvPageBuffer(len=512, offset=0x80, pfn=0x333)]
    assert b.session.call(b.exports.vmbus_sendpacket_pagebuffer, b.channel, pages, b"\x66" * 8, 9) == 0
    wire = written(b, start, 48)
    assert struct.unpack_from("<HHHHQII", wire) == (9, 5, 6, 1, 9, 0, 1)
    assert struct.unpack_from("<IIQ", wire, 24) == (512, 0x80, 0x333)
    start = ring.load32(0)
    assert b.session.call(b.exports.vmbus_sendpacket_pagebuffer, b.channel, pages * 33, b"", 9) == -22
    assert ring.load32(0) == start, "33 ranges do not fit into the structure: nothing was sent"
    assert b.session.call(b.exports.vmbus_sendpacket_pagebuffer, b.channel, pages * 32, b"", 9) == 0
    with pytest.raises(ValueError, match=r"desc_size 40 is below 48 \(2 pages\)"):
        b.session.call(send, b.channel, desc, 40, b"", 7)


def test_performance_channels_are_spread_and_others_are_not(bench: Callable[..., Bench]) -> None:
    b = bench(cpus=4)
    by_cpu: dict[bool, list[int]] = {True: [], False: []}
    from hvkernel.hv.channel_cpus import hv_is_perf_channel

    for channel in b.v.connection.chn_list:
        by_cpu[hv_is_perf_channel(channel)].append(channel.target_cpu)
    assert set(by_cpu[False]) == {0}
    assert len(by_cpu[True]) >= 3
    assert sorted(by_cpu[True])[:2] == [0, 1], "round robin, not all on one"


@pytest.mark.parametrize("host", ["ws2019", "ws2022"])
def test_an_interrupt_moves_with_its_channel(bench: Callable[..., Bench], host: str) -> None:
    b = bench(host=host, cpus=4)  # 5.2 does not answer, 5.3 does
    store = vmbus_drv.target_cpu_store
    assert b.session.call(store, b.v, b.channel, 2) == -5, "not open"
    assert b.open() == 0
    assert b.session.call(store, b.v, b.channel, 2) == 0
    assert b.channel.target_cpu == 2
    vp = b.v.hv_common.hv_cpu_number_to_vp_number(2)
    b.run()
    assert b.session.server.by_relid[b.channel.offermsg.child_relid].target_vp == vp
    assert b.session.call(store, b.v, b.channel, 99) == -22
    kernel = b.session.kernel
    assert b.session.call(kernel.cpuhp.cpu_down, 2) == -16, "a channel interrupts it"
    assert b.session.call(store, b.v, b.channel, 0) == 0


def test_old_hosts_do_not_move_channels(bench: Callable[..., Bench]) -> None:
    b = bench(host="ws2016")
    assert b.open() == 0
    assert b.session.call(vmbus_drv.target_cpu_store, b.v, b.channel, 1) == -5


def test_a_cpu_without_channels_may_leave_and_come_back(bench: Callable[..., Bench]) -> None:
    b = bench(host="ws2022", cpus=8)
    used = {channel.target_cpu for channel in b.v.connection.chn_list}
    cpu = next(n for n in range(7, 0, -1) if n not in used)
    kernel = b.session.kernel
    via = {"simp", "siefp"}
    shared = [e for e in b.session.machine.ledger.entries() if e.via in via]
    assert b.session.call(kernel.cpuhp.cpu_down, cpu) == 0
    assert len([e for e in b.session.machine.ledger.entries() if e.via in via]) == len(shared) - 2
    assert b.session.call(kernel.cpuhp.cpu_up, cpu) == 0
    assert len([e for e in b.session.machine.ledger.entries() if e.via in via]) == len(shared)


BAD = (
    (struct.pack("<II", 25, 0), "unknown msgtype=25"),
    (struct.pack("<II", 0xFFFF_FFFF, 0), "unknown msgtype=-1"),
    (struct.pack("<II", VmbusChannelMessageType.CHANNELMSG_OFFERCHANNEL, 0), "message too short: msgtype=1 len=8"),
    (struct.pack("<II", VmbusChannelMessageType.CHANNELMSG_VERSION_RESPONSE, 0), "message too short: msgtype=15 len=8"),
)


@pytest.mark.parametrize(("payload", "text"), BAD)
def test_bad_messages_are_dropped_with_one_warning(bench: Callable[..., Bench], payload: bytes, text: str) -> None:
    b = bench()
    for _ in range(2):
        b.session.host.synic.post_message(b.session.machine.boot_vp.vp_index, 2, 1, 1, payload)
        b.run()
    assert [line for line in b.lines if line == text] == [text]
    assert b.open() == 0, "the next messages go on"


def test_event_flags_count_before_a_version_is_agreed(bench: Callable[..., Bench]) -> None:
    """6.1 knows no interrupt page for the host's bits: every interrupt looks at the event flags (vmbus_isr)."""
    b = bench()
    assert b.open() == 0
    page = b.v.cpu_context[0].synic_event_page
    assert page is not None
    b.v.vmbus_proto_version = 0
    before = b.channel.interrupts

    def interrupt() -> None:
        b.v.memory.sync_set_bit(page.gpa + 2 * 256, b.channel.offermsg.child_relid)
        vmbus_isr.vmbus_isr(b.v)

    b.session.call(interrupt)
    assert b.channel.interrupts == before + 1


IGNORED = (
    struct.pack("<III", VmbusChannelMessageType.CHANNELMSG_TL_CONNECT_RESULT, 0, 0),
    struct.pack("<IIIII", VmbusChannelMessageType.CHANNELMSG_OPENCHANNEL_RESULT, 0, 77, 77, 0),
    struct.pack("<IIIII", VmbusChannelMessageType.CHANNELMSG_GPADL_CREATED, 0, 77, 77, 0),
    struct.pack("<III", VmbusChannelMessageType.CHANNELMSG_GPADL_TORNDOWN, 0, 77),
    struct.pack("<III", VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER, 0, 77),
    struct.pack("<II", VmbusChannelMessageType.CHANNELMSG_UNLOAD_RESPONSE, 0),
    struct.pack("<IIBBHI", VmbusChannelMessageType.CHANNELMSG_VERSION_RESPONSE, 0, 1, 0, 0, 9),
    struct.pack("<IIII", VmbusChannelMessageType.CHANNELMSG_MODIFYCHANNEL_RESPONSE, 0, 77, 0),
)


@pytest.mark.parametrize("payload", IGNORED, ids=lambda p: VmbusChannelMessageType(p[0]).name)
def test_answers_to_nothing_change_nothing(bench: Callable[..., Bench], payload: bytes) -> None:
    b = bench()
    before = (b.lines, list(b.v.connection.chn_list), b.v.connection.msg_conn_id)
    b.session.host.synic.post_message(b.session.machine.boot_vp.vp_index, 2, 1, 1, payload)
    b.run()
    assert (b.lines, list(b.v.connection.chn_list), b.v.connection.msg_conn_id) == before
    assert b.open() == 0


def test_mmio_ranges_come_from_the_windows_and_go_back(bench: Callable[..., Bench]) -> None:
    b = bench()
    take, give = b.exports.vmbus_allocate_mmio, b.exports.vmbus_free_mmio
    first: Any = b.session.call(take, b.device, 0, (1 << 64) - 1, 0x20_0000, 0x10_0000, False)
    second: Any = b.session.call(take, b.device, 0, (1 << 64) - 1, 0x20_0000, 0x10_0000, False)
    fb = b.v.fb_mmio
    assert fb is not None
    for one in (first, second):
        assert one.end - one.start + 1 == 0x20_0000
        assert one.start % 0x10_0000 == 0
        assert one.end < fb.start or one.start > fb.end
    assert second.start > first.end
    inside: Any = b.session.call(take, b.device, fb.start, fb.end, 0x1000, 0x1000, True)
    assert inside.start == fb.start
    b.session.call(give, inside.start, 0x1000)
    b.session.call(give, first.start, 0x20_0000)
    again: Any = b.session.call(take, b.device, 0, (1 << 64) - 1, 0x20_0000, 0x10_0000, False)
    assert again.start == first.start
    assert b.session.call(take, b.device, 0, 0x1000, 0x20_0000, 0x1000, False) == -6


def test_unregistering_a_driver_removes_its_devices(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.session.call(b.exports.vmbus_driver_unregister, b.driver.driver)
    assert b.driver.removed == [b.device]
    assert b.lines[-1] == "hv_vmbus: unregistering driver probe"


def test_a_failing_probe_is_reported(bench: Callable[..., Bench]) -> None:
    b = bench()

    def fail(dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        return -19

    driver = HvDriver("broken", [HvVmbusDeviceId(guids.HV_TS_GUID)], fail)
    empty = HvDriver("empty", [HvVmbusDeviceId(guids.HV_SHUTDOWN_GUID)], None)
    for one in (driver, empty):
        b.session.call(b.exports.vmbus_driver_register, one, "test")
    b.session.call(b.session.kernel.async_.async_synchronize_full)
    assert any(line.startswith("hv_vmbus: probe failed for device ") and line.endswith(" (-19)") for line in b.lines)
    assert any(line.startswith("hv_vmbus: probe not set for driver ") for line in b.lines)


def test_sysfs_attributes_of_a_device(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.v.hv_bus is not None
    (group,) = b.v.hv_bus.dev_groups
    files = {attr.name: attr for attr in group.attrs}

    def show(name: str) -> str | int:
        function = files[name].show
        assert function is not None
        value: str | int = b.session.call(function, b.v, b.device)
        return value

    offer = b.channel.offermsg
    assert show("id") == f"{offer.child_relid}\n"
    assert show("class_id") == "{a9a0f4e7-5a45-4d96-b827-8a841e8c03e6}\n"
    assert show("modalias") == f"vmbus:{guids.HV_KVP_GUID.hex()}\n"
    assert show("channel_vp_mapping") == f"{offer.child_relid}:0\n"
    assert show("out_read_index") == -22, "no ring yet"
    assert b.open() == 0
    assert show("out_write_index") == "0\n"
    assert show("state") == "3\n"
    for name in files:
        assert str(show(name)).endswith("\n"), name
