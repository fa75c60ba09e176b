"""The driver's arithmetic and decisions, without a guest around them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvkernel.abi.ring import VmpacketDescriptor
from hvkernel.api.guest.scsi import HostByte
from hvkernel.hv.ring_buffer import VMBUS_RING_SIZE
from hvkernel_storvsc import vsc, vsc_io
from hvkernel_storvsc.wire import STORVSC_MAX_PKT_SIZE, VmscsiRequest, VstorPacket

DATA = Path(__file__).parents[2] / "data" / "storvsc"


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_storvsc_max_outstanding_req_per_channel(page_size: int) -> None:
    rows = json.loads((DATA / "max_outstanding_req_per_channel.json").read_text())["by_page_size"][str(page_size)]
    assert len(rows) == 4
    for row in rows:
        aligned = VMBUS_RING_SIZE(row["in"]["storvsc_ringbuffer_size"], page_size)
        assert aligned == row["out"]["aligned"]
        assert vsc.max_outstanding_req_per_channel(aligned, page_size) == row["out"]["max_outstanding"]


def test_versions_are_tried_from_the_newest_down() -> None:
    assert vsc.PROTOCOL_VERSIONS == (0x602, 0x600, 0x501)


def test_sizes_on_the_wire() -> None:
    assert (VstorPacket.SIZE, VmscsiRequest.SIZE) == (64, 52)
    assert STORVSC_MAX_PKT_SIZE == VmpacketDescriptor.SIZE + VstorPacket.SIZE


def test_the_packed_request_is_the_declared_structure() -> None:
    values: list[Any] = list(range(1, 23))
    values[15] = bytes(range(100, 120))
    packet = VstorPacket.unpack(vsc_io.EXECUTE_SRB.pack(*values))
    srb = packet.vm_srb
    assert vsc_io.EXECUTE_SRB.size == VstorPacket.SIZE
    assert (packet.operation, packet.flags, packet.status) == (1, 2, 3)
    fields = [getattr(srb, field.name) for field in VmscsiRequest.FIELDS if not field.overlay]
    assert fields == values[3:]


def test_the_unpacked_answer_is_the_declared_structure() -> None:
    raw = bytes(range(1, 65))
    packet = VstorPacket.unpack(raw)
    srb = packet.vm_srb
    assert vsc_io.COMPLETE_IO.unpack_from(raw) == (
        packet.operation,
        packet.status,
        srb.srb_status,
        srb.scsi_status,
        srb.sense_info_length,
        srb.data_transfer_length,
        srb.sense_data,
    )


@pytest.mark.parametrize(
    ("sense", "codes"),
    [
        (b"", (0, 0)),
        (bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 0x09]), (0x2A, 0x09)),
        (bytes([0xF0]) + bytes(11) + bytes([0x3F, 0x0E]), (0x3F, 0x0E)),
        (bytes([0x72, 5, 0x24, 0x01]), (0x24, 0x01)),
        (bytes([0x70, 0, 5]), (0, 0)),
        (bytes([0x73, 5]), (0, 0)),
    ],
)
def test_sense_codes_of_both_formats(sense: bytes, codes: tuple[int, int]) -> None:
    assert vsc_io.sense_codes(sense) == codes


# decisions, on stand-ins for the kernel around the driver ------------------------------------------------------


class Lock:
    def irqsave(self) -> nullcontext[None]:
        return nullcontext()


class World:
    """A driver with four CPUs on two nodes, channels on the CPUs asked for, and what it did."""

    def __init__(self, channels: tuple[int, ...], percent: dict[int, int] | None = None) -> None:
        self.works: list[Any] = []
        self.channels = [
            SimpleNamespace(target_cpu=cpu, name=cpu, primary_channel=None, device_obj=None, sc_list=[])
            for cpu in channels
        ]
        primary = self.channels[0]
        primary.sc_list = self.channels[1:]
        for channel in self.channels[1:]:
            channel.primary_channel = primary
        levels = percent or {}
        nodes = {0: (0, 1), 1: (2, 3)}
        cpus = SimpleNamespace(
            cpu_to_node=lambda cpu: cpu // 2,
            cpumask_of_node=lambda node: nodes[node],
            for_each_possible_cpu=lambda: iter(range(4)),
        )
        kernel: Any = SimpleNamespace(
            cpus=cpus, workqueue=SimpleNamespace(queue_work=lambda wq, work: self.works.append(work))
        )
        self.driver = vsc.Storvsc(kernel)
        self.driver.vmbus = cast(
            Any, SimpleNamespace(hv_get_avail_to_write_percent=lambda channel: levels.get(channel.target_cpu, 50))
        )
        self.host: Any = SimpleNamespace(host_no=0, hostdata=SimpleNamespace(handle_error_wq=object()))
        device: Any = SimpleNamespace(channel=primary, driver_data=None)
        primary.device_obj = device
        self.stor: Any = vsc_io.StorvscDevice(device, cast(Any, self.host), cast(Any, Lock()), cast(Any, None))
        device.driver_data = self.stor
        self.stor.stor_chns = [None] * 4
        self.stor.num_sc = len(channels) - 1
        for channel in self.channels:
            self.stor.stor_chns[channel.target_cpu] = channel
            self.stor.add_cpu(channel.target_cpu)

    def pick(self, cpu: int) -> int:
        return int(vsc_io._outgoing_channel(self.driver, self.stor, cpu).target_cpu)


@pytest.mark.parametrize(
    ("channels", "percent", "wanted"),
    [
        ((1,), {}, [1, 1, 1, 1]),
        ((0, 1, 2, 3), {}, [1, 0, 3, 2]),
        ((0, 1, 2, 3), {1: 10}, [0, 0, 3, 2]),
        ((0, 1, 2, 3), {0: 10, 1: 10}, [2, 2, 3, 2]),
        ((0, 1, 2, 3), {0: 10, 1: 10, 2: 10, 3: 10}, [0, 1, 2, 3]),
        ((0, 2), {}, [0, 0, 2, 2]),
        ((0, 1), {}, [1, 0, 0, 0]),
    ],
)
def test_the_channel_of_a_command(channels: tuple[int, ...], percent: dict[int, int], wanted: list[int]) -> None:
    """Near first and not the CPU's own, then the own, then far; a CPU without a channel shares one of its node."""
    assert [World(channels, percent).pick(cpu) for cpu in range(4)] == wanted


def test_cpus_without_a_channel_are_spread_over_those_of_their_node() -> None:
    world = World((0, 1))
    cast(Any, world.driver.kernel.cpus).cpumask_of_node = lambda node: (0, 1, 2, 3)
    assert [vsc_io.get_og_chn(world.driver, world.stor, cpu).target_cpu for cpu in (2, 3)] == [0, 1]
    assert [channel and channel.target_cpu for channel in world.stor.stor_chns] == [0, 1, 0, 1]


def test_moving_a_channel_leaves_the_old_cpu_to_another_one_there() -> None:
    world = World((0, 0, 1))
    primary, second, third = world.channels
    world.driver.storvsc_change_target_cpu(cast(Any, primary), 0, 3)
    assert world.stor.stor_chns == [second, third, None, primary]
    assert world.stor.alloced_cpus == [0, 1, 3]
    primary.target_cpu = 3
    world.stor.stor_chns[2] = third
    world.driver.storvsc_change_target_cpu(cast(Any, third), 1, 3)
    assert world.stor.alloced_cpus == [0, 3]
    assert world.stor.stor_chns == [second, None, None, third], "slots of CPUs without a channel are flushed"
    world.stor.destroy = True
    world.driver.storvsc_change_target_cpu(cast(Any, second), 0, 1)
    assert world.stor.alloced_cpus == [0, 3]


VALID = 0x80


@pytest.mark.parametrize(
    ("srb", "codes", "opcode", "host_byte", "work"),
    [
        (0x04 | VALID, (0x2A, 0x09), 0x28, HostByte.DID_REQUEUE, "storvsc_device_scan"),
        (0x02 | VALID, (0x2A, 0x09), 0x28, HostByte.DID_REQUEUE, "storvsc_device_scan"),
        (0x06 | VALID, (0x3F, 0x0D), 0x28, HostByte.DID_REQUEUE, "storvsc_device_scan"),
        (0x04 | VALID, (0x3F, 0x03), 0x28, HostByte.DID_OK, None),
        (0x04 | VALID, (0x3F, 0x0E), 0x28, HostByte.DID_OK, None),
        (0x04 | VALID, (0x2A, 0x01), 0x28, HostByte.DID_OK, None),
        (0x04 | VALID | 0x40, (0x2A, 0x09), 0x28, HostByte.DID_REQUEUE, "storvsc_device_scan"),
        (0x04, (0x2A, 0x09), 0x28, HostByte.DID_ERROR, None),
        (0x06, (0, 0), 0x85, HostByte.DID_PASSTHROUGH, None),
        (0x06, (0, 0), 0xA1, HostByte.DID_PASSTHROUGH, None),
        (0x04, (0, 0), 0x00, HostByte.DID_OK, None),
        (0x20, (0, 0), 0x28, HostByte.DID_NO_CONNECT, "storvsc_remove_lun"),
        (0x12, (0, 0), 0x28, HostByte.DID_OK, None),
        (0x05, (0, 0), 0x28, HostByte.DID_OK, None),
    ],
)
def test_storvsc_handle_error(
    srb: int, codes: tuple[int, int], opcode: int, host_byte: HostByte, work: str | None
) -> None:
    world = World((0,))
    request = vsc_io.StorvscCmdRequest()
    request.srb_status = srb
    scmnd: Any = SimpleNamespace(cmnd=bytes([opcode]), result=0x02, device=SimpleNamespace(id=1, lun=7))
    request.cmd = scmnd
    vsc_io.storvsc_handle_error(world.driver, request, scmnd, world.host, *codes)
    assert scmnd.result == 0x02 | host_byte << 16
    assert [queued.func.__name__ for queued in world.works] == ([work] if work else [])
    assert all(queued.data == (world.host, 1, 7) for queued in world.works)


@pytest.mark.parametrize(
    ("srb", "moved", "resid"), [(0x01, 512, 512), (0x01, 2048, 0), (0x12, 512, 512), (0x04, 512, 1024), (0x01, 0, 1024)]
)
def test_the_residue_of_a_command(srb: int, moved: int, resid: int) -> None:
    world = World((0,))
    done: list[Any] = []
    world.driver.kernel.scsi = SimpleNamespace(scsi_done=done.append)  # type: ignore[misc] # a stand-in
    request = vsc_io.StorvscCmdRequest()
    scmnd: Any = SimpleNamespace(cmnd=b"\x28", result=0, sense_buffer=b"", resid=None)
    request.cmd, request.srb_status, request.length, request.data_transfer_length = scmnd, srb, 1024, moved
    vsc_io.storvsc_command_completion(world.driver, request, world.stor)
    assert (scmnd.resid, done) == (resid, [scmnd])


@pytest.mark.parametrize(
    ("version", "opcode", "allowed"),
    [(0x501, 0x41, False), (0x501, 0x24, False), (0x501, 0x2A, True), (0x600, 0x41, True)],
)
def test_what_old_hosts_do_not_handle_is_not_sent(version: int, opcode: int, allowed: bool) -> None:
    world = World((0,))
    done: list[Any] = []
    world.driver.kernel.scsi = SimpleNamespace(scsi_done=done.append)  # type: ignore[misc] # a stand-in
    world.driver.vmstor_proto_version = version
    scmnd: Any = SimpleNamespace(cmnd=bytes([opcode]), result=0, device=None)
    if allowed:
        with pytest.raises(AttributeError):
            vsc_io.storvsc_queuecommand(world.driver, world.host, scmnd)
        assert done == []
    else:
        assert vsc_io.storvsc_queuecommand(world.driver, world.host, scmnd) == 0
        assert (scmnd.result, done) == (HostByte.DID_ERROR << 16, [scmnd])
