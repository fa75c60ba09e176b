"""Every packet type on every channel of a device with sub-channels, recorded and read back."""

from __future__ import annotations

import io
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.meaning import dictionary
from hvkernel.abi.ring import VmbusPacketType
from hvkernel.decode.recognise import explain
from hvkernel.trace.dissector import dissector
from hvkernel.trace.pcapng import PcapngWriter
from hvkernel.trace.sink import NullTracer

AMD64 = "debian12-6.1.192-cloud-amd64"


class Told(NullTracer):
    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.writer = PcapngWriter(self.out)
        self.packets: list[tuple[int, bool, bytes]] = []

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self.writer.message(t, vp, to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self.packets.append((relid, to_host, data))
        self.writer.packet(t, vp, relid, to_host, data)


@pytest.fixture(params=[(AMD64, {}), ("azurelinux3-64k-aarch64", {})], ids=["x86-4k", "arm64-64k"])
def told(request: pytest.FixtureRequest, loom: Any) -> Told:
    config, vm = request.param
    guest = loom(config, vm, boot=False)
    told = guest.session.machine.tracer = Told()
    guest.session.boot()
    (one,) = guest.looms
    driver = guest.driver
    data = bytes(range(256)) * 7
    for channel in one.channels:
        for fn, *arguments in (
            (driver.loom_note,),
            (driver.loom_sum, data),
            (driver.loom_sum_getid, b"odd"),
            (driver.loom_gather, data * 3),
            (driver.loom_scatter, 9001, 77),
            (driver.loom_tick, 5),
            (driver.loom_deliver, 3, 3000),
        ):
            assert not guest.call(fn, one, channel, *arguments)
    return told


def modules(loom_plugins: Any) -> list[Any]:
    return [module for _, more in loom_plugins.call("hv_abi") for module in more]


def test_decode_explains_them_all(told: Told, loom_plugins: Any) -> None:
    (found,) = explain(told.out.getvalue(), dictionary(modules(loom_plugins)), limit=100_000)
    assert found.all_problems() == []
    packets = [record for record in found.records if " relid " in record.text and "VM_PKT" in record.text]
    assert len(packets) == len(told.packets)
    seen = Counter(record.children[1].name for record in packets)
    for kind in ("DATA_INBAND", "DATA_USING_GPA_DIRECT", "DATA_USING_XFER_PAGES", "COMP"):
        assert seen[f"VM_PKT_{kind}"] > 10
    looms = [
        record
        for record in packets
        if "loom_message" in {child.name.split()[-1] for child in record.children[1].children}
    ]
    assert len({record.text.split(" relid ")[1].split()[0] for record in looms}) == 4, "a channel for each processor"


def test_the_dissector_takes_the_tables_of_a_strangers_plugin(
    told: Told, loom_plugins: Any, program: Callable[[str, str], str], tmp_path: Path
) -> None:
    lua, capture = tmp_path / "vmbus.lua", tmp_path / "looms.pcapng"
    lua.write_text(dissector(modules(loom_plugins)))
    capture.write_bytes(told.out.getvalue())
    names = ("vmbus.vmpacket_descriptor.type", "vmbus.malformed", "vmbus.unknown", "vmbus.reserved", "_ws.lua.error",
             "vmbus.loom_message.op", "vmbus.request_in", "vmbus.vmtransfer_page_packet_header.range_cnt")  # fmt: skip
    options = [part for name in names for part in ("-e", name)]
    done = subprocess.run(
        [program("tshark", "tshark"), "-X", f"lua_script:{lua}", "-r", str(capture), "-T", "fields", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]
    for name in names[1:5]:
        assert {row[name] for row in rows} == {""}
    packets = [row for row in rows if row[names[0]]]
    for row, (_, _, data) in zip(packets, told.packets, strict=True):
        kind, offset8 = struct.unpack_from("<HH", data)
        assert int(row[names[0]], 0) == kind
        assert bool(row["vmbus.request_in"]) == (kind == VmbusPacketType.VM_PKT_COMP)
        if row["vmbus.loom_message.op"]:
            assert int(row["vmbus.loom_message.op"], 0) == struct.unpack_from("<I", data, offset8 * 8)[0]
        if kind == VmbusPacketType.VM_PKT_DATA_USING_XFER_PAGES:
            assert int(row[names[-1]], 0) == struct.unpack_from("<I", data, 20)[0]
    assert sum(bool(row["vmbus.loom_message.op"]) for row in packets) > 60


def test_what_waited_for_room_is_recorded_when_it_is_written(loom: Any) -> None:
    guest = loom(looms=[{"subchannels": 0}])
    (one,) = guest.looms
    (server,) = [found for found in guest.session.server.by_relid.values() if found.device.name == "loom0"]
    waiting: list[int] = []

    class Watch(Told):
        def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
            waiting.append(len(server.queue))
            super().packet(t, vp, relid, to_host, data)

    told = guest.session.machine.tracer = Watch()
    assert not guest.call(guest.driver.loom_tick, one, one.channels[0], 1500)
    assert max(waiting) > 0, "the ring was never full"
    ticks = [data for _, to_host, data in told.packets if not to_host and data[0] == VmbusPacketType.VM_PKT_DATA_INBAND]
    assert len(ticks) == 1500
    ids = [struct.unpack_from("<Q", data, 8)[0] for data in ticks]
    assert ids == sorted(set(ids))
