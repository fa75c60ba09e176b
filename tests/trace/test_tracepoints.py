"""The tracepoints against the kernel's own headers: fields, formats, and every line of traces that pass all of them."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from hvkernel.abi import guids
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus
from hvkernel.api.guest.tracing import trace_event
from hvkernel.boot.session import Session
from hvkernel.hv import channel as channel_c
from hvkernel.hv import vmbus_drv
from hvkernel.hv.exports import VmbusExports
from hvkernel.hv.hv_trace import HV_TRACE
from hvkernel.machine.tracing import EventRow, Where
from hvkernel.trace.ftrace import format_file
from hvkernel.trace.sink import NullTracer
from hvkernel_x86.guest import X86Guest
from hvkernel_x86.guest.nested import hyperv_flush_guest_mapping, hyperv_flush_guest_mapping_range
from hvkernel_x86.guest.trace import HYPERV_TRACE

HEADERS = {"drivers/hv/hv_trace.h": HV_TRACE, "arch/x86/include/asm/trace/hyperv.h": HYPERV_TRACE}
ALL = (*HV_TRACE, *HYPERV_TRACE)
SECOND = 10_000_000


# the kernel's headers ------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """What the kernel's header says of one tracepoint."""

    system: str
    fields: list[tuple[str, str, int | None]]
    format: str
    arguments: list[str]


def call_of(text: str, at: int) -> tuple[list[str], int]:
    """The arguments of the macro call whose ``(`` is at ``at``, and where it ends."""
    arguments: list[str] = []
    depth, start, quoted = 0, at + 1, False
    for i in range(at, len(text)):
        c = text[i]
        if c == '"' and text[i - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        if c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if not depth:
                return [*arguments, text[start:i].strip()], i + 1
        elif c == "," and depth == 1:
            arguments.append(text[start:i].strip())
            start = i + 1
    raise AssertionError("a macro call does not end")


def part(arguments: Sequence[str], macro: str) -> str:
    return next(one for one in arguments if one.startswith(f"{macro}("))


def declarations(header: str) -> dict[str, Declared]:
    """Every tracepoint of a header."""
    system = re.search(r"#define TRACE_SYSTEM (\w+)", header)
    assert system is not None
    classes: dict[str, Declared] = {}
    found: dict[str, Declared] = {}
    for call in re.finditer(r"^(TRACE_EVENT|DECLARE_EVENT_CLASS|DEFINE_EVENT)(?=\()", header, re.MULTILINE):
        arguments, _ = call_of(header, call.end())
        if call[1] == "DEFINE_EVENT":
            found[arguments[1]] = classes[arguments[0]]
            continue
        entry = part(arguments, "TP_STRUCT__entry")
        fields: list[tuple[str, str, int | None]] = []
        for field in re.finditer(r"__(field|array)(?=\()", entry):
            words, _ = call_of(entry, field.end())
            fields.append((words[0], words[1], int(words[2]) if field[1] == "array" else None))
        printed, _ = call_of(part(arguments, "TP_printk"), len("TP_printk"))
        text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', printed[0]))
        row = Declared(system[1], fields, text, [one.removeprefix("__entry->") for one in printed[1:]])
        (classes if call[1] == "DECLARE_EVENT_CLASS" else found)[arguments[0]] = row
    return found


@pytest.fixture(scope="session")
def kernels(kernel_source: Path) -> dict[str, Declared]:
    return {name: row for header in HEADERS for name, row in declarations((kernel_source / header).read_text()).items()}


@pytest.mark.parametrize("header", HEADERS)
def test_the_tables_are_the_kernels_headers(header: str, kernel_source: Path) -> None:
    wanted = declarations((kernel_source / header).read_text())
    assert [event.name for event in HEADERS[header]] == list(wanted)
    for event in HEADERS[header]:
        row = wanted[event.name]
        assert event.system == row.system
        assert [(field.type, field.name, field.count) for field in event.fields] == row.fields, event.name
        assert event.format == row.format, event.name
        assert list(event.arguments) == row.arguments, event.name


def test_the_tables_say_where_the_kernel_passes_them(kernel_source: Path) -> None:
    passed: dict[str, set[str]] = {}
    for file in (kernel_source / "drivers/hv").glob("*.c"):
        for name in re.findall(r"\btrace_(\w+)\(", file.read_text()):
            passed.setdefault(name, set()).add(f"drivers/hv/{file.name}")
    for event in HV_TRACE:
        assert event.source.partition(":")[0] in passed[event.name], event.name
    named = {event.name for event in HV_TRACE}
    assert {name for name in passed if name.startswith("vmbus_")} == named


# how a line is printed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conversion", "field", "value", "text"),
    [
        ("d", "u32", 0xFFFF_FFEA, "-22"),
        ("d", "u16", 0xFFEA, "65514"),
        ("d", "int", -11, "-11"),
        ("u", "unsigned int", 0xFFFF_FFFF, "4294967295"),
        ("x", "u32", 0xABC, "abc"),
        ("lx", "unsigned long", (1 << 64) - 1, "ffffffffffffffff"),
        ("llx", "u64", 1 << 40, "10000000000"),
        ("p", "struct mm_struct *", 0, "0000000000000000"),
    ],
)
def test_conversions(conversion: str, field: str, value: int, text: str) -> None:
    event = trace_event("test", "one", f"{field} x", f"<{{x:{conversion}}}>", "")
    assert event.text([value]) == f"<{text}>"


def test_a_pointer_is_hashed_and_as_wide_as_a_register() -> None:
    event = trace_event("test", "one", "struct mm_struct * x", "{x:p}", "")
    assert re.fullmatch("0{8}[0-9a-f]{8}", event.text([0x1234_5000]))
    assert event.text([0x1234_5000]) != event.text([0x1234_6000])
    assert len(event.text([0x1234_5000], 32)) == 8
    assert event.text([0xFFFF_FFF4], 32) == "fffffff4"


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("u33 x", "", "test:bad: 'u33 x' declares no field of a known type"),
        ("u32 x", "{y:x}", "test:bad: {y:x} is no field with a known conversion"),
        ("u32 x", "{x:s}", "test:bad: {x:s} is no field with a known conversion"),
    ],
)
def test_a_row_that_cannot_be_is_refused(fields: str, line: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        trace_event("test", "bad", fields, line, "")
    assert str(caught.value) == message


def test_a_format_file() -> None:
    """Laid out as C does it: checked by hand against struct trace_event_raw_vmbus_negotiate_version."""
    event = next(one for one in HV_TRACE if one.name == "vmbus_negotiate_version")
    assert format_file(event, 711, 64) == (
        "name: vmbus_negotiate_version\n"
        "ID: 711\n"
        "format:\n"
        "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
        "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
        "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
        "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n"
        "\n"
        "\tfield:u32 ver;\toffset:8;\tsize:4;\tsigned:0;\n"
        "\tfield:u32 target_vcpu;\toffset:12;\tsize:4;\tsigned:0;\n"
        "\tfield:int ret;\toffset:16;\tsize:4;\tsigned:1;\n"
        "\tfield:u64 int_page;\toffset:24;\tsize:8;\tsigned:0;\n"
        "\tfield:u64 mon_page1;\toffset:32;\tsize:8;\tsigned:0;\n"
        "\tfield:u64 mon_page2;\toffset:40;\tsize:8;\tsigned:0;\n"
        "\n"
        'print fmt: "sending vmbus_version_requested %d, target_vcpu 0x%x, pages %llx:%llx:%llx, ret %d", REC->ver, '
        "REC->target_vcpu, REC->int_page, REC->mon_page1, REC->mon_page2, REC->ret\n"
    )
    offer = next(one for one in HV_TRACE if one.name == "vmbus_onoffer")
    text = format_file(offer, 1, 64)
    assert "\tfield:char if_type[16];\toffset:20;\tsize:16;\tsigned:1;\n" in text
    assert "\tfield:char if_type[16];\toffset:20;\tsize:16;\tsigned:0;\n" in format_file(
        offer, 1, 64, signed_char=False
    )
    flush = HYPERV_TRACE[0]
    assert "\tfield:struct mm_struct * mm;\toffset:16;\tsize:8;\tsigned:0;\n" in format_file(flush, 1, 64)
    assert "\tfield:struct mm_struct * mm;\toffset:12;\tsize:4;\tsigned:0;\n" in format_file(flush, 1, 32)


FIELD = re.compile(r"\tfield:(.+?) (\w+)(\[\d+\])?;\toffset:(\d+);\tsize:(\d+);\tsigned:([01]);")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the compiler of another architecture has no -m32 and -m64")
@pytest.mark.parametrize(("bits", "signed_char"), [(64, True), (64, False), (32, True)])
def test_the_compiler_lays_the_fields_out_so(
    bits: int, signed_char: bool, kernels: dict[str, Declared], program: Callable[[str, str], str], tmp_path: Path
) -> None:
    """struct trace_event_raw_EVENT as include/trace/stages makes it of the kernel's header, and what is said of it."""
    source = [
        "typedef unsigned char u8; typedef unsigned short u16;",
        "typedef unsigned int u32; typedef unsigned long long u64;",
        "struct mm_struct;",
        "#define SIGNED(type) (__builtin_types_compatible_p(type, struct mm_struct *) ? 0 : (type)-1 < (type)1)",
    ]
    for name, row in kernels.items():
        members = "".join(f"{kind} {field}{f'[{count}]' if count else ''}; " for kind, field, count in row.fields)
        common = "unsigned short common_type; unsigned char common_flags, common_preempt_count; int common_pid;"
        source.append(f"struct {name} {{ {common} {members}}};")
        event = next(one for one in ALL if one.name == name)
        found = FIELD.findall(format_file(event, 1, bits, signed_char=signed_char))
        assert [field for _, field, *_ in found][4:] == [field for _, field, _ in row.fields]
        for kind, field, _, offset, size, signed in found:
            source.append(f'_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset}, "{field}");')
            source.append(f'_Static_assert(sizeof(((struct {name} *)0)->{field}) == {size}, "{field}");')
            source.append(f'_Static_assert(SIGNED({kind}) == {signed}, "{field}");')
    file = tmp_path / "layout.c"
    file.write_text("\n".join(source) + "\n")
    char = "-fsigned-char" if signed_char else "-funsigned-char"
    done = subprocess.run(
        [program("gcc", "gcc"), "-fsyntax-only", f"-m{bits}", char, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]


# traces --------------------------------------------------------------------------------------------------------


class Watch(NullTracer):
    """Keeps what was passed, beside the file that is written of it."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.seen: list[tuple[Where, EventRow, tuple[int | bytes, ...]]] = []

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        self.seen.append((where, event, tuple(values)))
        self.behind.tracepoint(where, event, values)


PATTERNS = {
    "%d": r"(-?\d+)",
    "%u": r"(\d+)",
    "%x": r"([0-9a-f]+)",
    "%lx": r"([0-9a-f]+)",
    "%llx": r"([0-9a-f]+)",
    "%p": r"([0-9a-f]{16})",
    "%pUl": r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
}
LINE = re.compile(
    r" *(?P<comm>\S.*)-(?P<pid>\d+) +\[(?P<cpu>\d{3})\] [dDbB.][.][Hhs.][1-9a-f.][.] +(?P<s>\d+)\.(?P<us>\d{6}): "
    r"(?P<event>\w+): (?P<text>.*)"
)


def pattern(row: Declared) -> re.Pattern[str]:
    """The regular expression that a kernel's format is."""
    pieces = re.split(r"(%pUl|%llx|%lx|%[dux]|%p)", row.format)
    assert not any("%" in text for text in pieces[::2]), row.format
    return re.compile("".join(PATTERNS[p] if p in PATTERNS else re.escape(p) for p in pieces))


def value_of(conversion: str, text: str) -> int | bytes:
    if conversion == "%pUl":
        return UUID(text).bytes_le
    return int(text, 16 if conversion.endswith("x") else 10)


def scenario(recorded: Callable[..., Session], file: Path) -> tuple[Session, Watch, int]:
    """A boot with sub-channels and all that a guest does to its channels afterwards."""
    session = recorded(file, cpus=40, host="ws2022/gen2")
    watch = Watch(session.recorder)
    session.machine.tracer = watch
    session.boot()
    assert session.kernel.outcome is not None
    assert session.kernel.outcome.state == "up"
    exports = session.kernel.symbol(Vmbus)
    assert isinstance(exports, VmbusExports)
    devices: list[HvDevice] = []

    def probe(dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        devices.append(dev)
        return 0

    driver = HvDriver("probe", [HvVmbusDeviceId(guids.HV_KVP_GUID)], probe)
    assert session.call(exports.vmbus_driver_register, driver, "probe") == 0
    session.call(session.kernel.async_.async_synchronize_full)
    (device,) = devices
    channel, relid = device.channel, device.channel.offermsg.child_relid
    ring = exports.VMBUS_RING_SIZE(16384)
    assert session.call(exports.vmbus_open, channel, ring, ring, b"", lambda context: None, None) == 0
    assert session.call(vmbus_drv.target_cpu_store, exports.v, channel, 3) == 0
    session.call(exports.vmbus_close, channel)
    offered = next(one for one in session.server.devices if relid in [c.relid for c in one.channels])
    session.server.rescind(offered)
    session.machine.run(limit=SECOND)
    assert session.call(channel_c.vmbus_send_tl_connect_request, exports.v, bytes(range(16)), bytes(range(16, 32))) == 0

    cpus, arch = session.kernel.cpus, session.kernel.arch
    assert isinstance(arch, X86Guest)
    session.call(cpus.smp_call_function_single, 5, int)
    session.call(cpus.smp_call_function_many, [1, 2, 3], int)

    class Flush:
        pgd = 0x1234_5000
        start, end = 0x7F00_0000, 0x7F00_4000

    session.call(arch.flush_tlb_multi, [1, 2], Flush())
    session.call(hyperv_flush_guest_mapping, arch.state, 0x9000)
    session.call(hyperv_flush_guest_mapping_range, arch.state, 0xA000, lambda: [0x5000])
    return session, watch, relid


@pytest.fixture
def everything(recorded: Callable[..., Session], tmp_path: Path) -> tuple[Session, Watch, int, list[str]]:
    file = tmp_path / "all.ftrace"
    session, watch, relid = scenario(recorded, file)
    session.close()
    return session, watch, relid, [line for line in file.read_text().splitlines() if not line.startswith("#")]


def test_every_tracepoint_is_passed_and_every_line_is_the_kernels(
    everything: tuple[Session, Watch, int, list[str]], kernels: dict[str, Declared]
) -> None:
    _, watch, _, lines = everything
    assert len(lines) == len(watch.seen)
    assert {event.name for _, event, _ in watch.seen} == set(kernels)
    patterns = {name: pattern(row) for name, row in kernels.items()}
    conversions = {name: re.findall(r"%pUl|%llx|%lx|%[dux]|%p", row.format) for name, row in kernels.items()}
    for line, (where, event, values) in zip(lines, watch.seen, strict=True):
        found = LINE.fullmatch(line)
        assert found is not None, line
        row = kernels[found["event"]]
        assert event.name == found["event"]
        printed = patterns[found["event"]].fullmatch(found["text"])
        assert printed is not None, line
        for conversion, name, text in zip(conversions[event.name], row.arguments, printed.groups(), strict=True):
            value = values[[field[1] for field in row.fields].index(name)]
            if conversion != "%p":
                assert value_of(conversion, text) == value, line
        assert int(found["cpu"]) == where.cpu
        assert found["comm"] == (where.comm if where.pid else "<idle>")
        assert int(found["s"]) * 1_000_000 + int(found["us"]) == (where.ns + 500) // 1000
    assert [where.t for where, _, _ in watch.seen] == sorted(where.t for where, _, _ in watch.seen)


def test_what_was_passed_is_what_happened(
    everything: tuple[Session, Watch, int, list[str]],
) -> None:
    session, watch, relid, _ = everything
    events: dict[str, list[dict[str, Any]]] = {}
    for _, event, values in watch.seen:
        events.setdefault(event.name, []).append(dict(zip(event.field_names, values, strict=True)))
    report = session.report()
    offers = {one["child_relid"]: one for one in events["vmbus_onoffer"]}
    for device in report.devices:
        if device.relid in offers:
            assert str(UUID(bytes_le=offers[device.relid]["if_instance"])) == device.instance_guid
    assert any(one["sub_idx"] for one in offers.values()), "the disk controller has sub-channels"
    negotiated = events["vmbus_negotiate_version"][-1]["ver"]
    assert f"{negotiated >> 16}.{negotiated & 0xFFFF}" == report.vmbus.version == "5.3"
    assert [one["ver"] for one in events["vmbus_onversion_response"]][-1] == 1
    opened = [one for one in events["vmbus_open"] if one["child_relid"] == relid]
    assert [(one["openid"], one["ret"]) for one in opened] == [(relid, 0)]
    gpadl = opened[0]["gpadlhandle"]
    for name in ("vmbus_establish_gpadl_header", "vmbus_ongpadl_created", "vmbus_teardown_gpadl"):
        assert [one["gpadl"] for one in events[name] if one["child_relid"] == relid] == [gpadl], name
    assert gpadl in [one["gpadl"] for one in events["vmbus_ongpadl_torndown"]]
    vp = session.kernel.cpus.cpu(3).vp.vp_index
    assert [(one["child_relid"], one["target_vp"]) for one in events["vmbus_send_modifychannel"]] == [(relid, vp)]
    assert events["vmbus_onmodifychannel_response"] == [{"child_relid": relid, "status": 0}]
    assert [one["child_relid"] for one in events["vmbus_onoffer_rescind"]] == [relid]
    assert [one["child_relid"] for one in events["vmbus_release_relid"]] == [relid]
    assert len(events["vmbus_open"]) == len(events["vmbus_onopen_result"])
    connect = events["vmbus_send_tl_connect_request"][0]
    assert (connect["guest_id"], connect["host_id"]) == (bytes(range(16)), bytes(range(16, 32)))
    assert {"cpu": 5, "vector": 0xFB} in events["hyperv_send_ipi_one"]
    assert {"ncpus": 3, "vector": 0xFC} in events["hyperv_send_ipi_mask"]
    assert events["hyperv_mmu_flush_tlb_multi"][-1] == {
        "ncpus": 2, "mm": 0x1234_5000, "addr": 0x7F00_0000, "end": 0x7F00_4000
    }  # fmt: skip
    assert [one["as"] for one in events["hyperv_nested_flush_guest_mapping"]] == [0x9000]
    assert [one["as"] for one in events["hyperv_nested_flush_guest_mapping_range"]] == [0xA000]
