"""SCSI hosts, scanning, disks, timeouts: against a host adapter with disks in Python."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from hvkernel.api.guest.block import BlockError
from hvkernel.api.guest.device import Device
from hvkernel.linux import scsi_proto as proto

SCSI = {"SCSI": "y", "BLK_DEV_SD": "y", "BLK_DEV_SR": "y", "CHR_DEV_SG": "n", "SCSI_SCAN_ASYNC": "y"}
MIB = 1 << 20


def start(
    make_guest: Any,
    fake_hba: Any,
    disks: Any,
    *,
    config: Any = None,
    sg: Any = False,
    guest_options: Any = None,
    **options: Any,
) -> Any:
    """A guest with SCSI running and its host scanned."""
    guest = make_guest(config={**SCSI, **(config or {})}, **(guest_options or {}))
    k = guest.kernel
    k.link()
    hba = fake_hba(guest, disks, **options)

    def body() -> None:
        k.initcall.run("subsys", "late")
        parent = Device("parent")
        assert k.scsi.scsi_add_host(hba.host, parent) == 0
        k.scsi.scsi_scan_host(hba.host)
        k.async_.async_synchronize_full()

    guest.call(body)
    return guest, hba


def text_of(guest: Any) -> Any:
    return [line for line in guest.lines if "clock" not in line.split(":")[0]]


def test_a_scan_prints_the_lines_of_the_real_log_in_their_order(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(64 * MIB)})
    assert text_of(guest) == [
        "SCSI subsystem initialized",
        "scsi host0: fake_host_t",
        "scsi 0:0:0:0: Direct-Access     Msft     Virtual Disk     1.0  PQ: 0 ANSI: 5",
        "sd 0:0:0:0: [sda] 131072 512-byte logical blocks: (67.1 MB/64.0 MiB)",
        "sd 0:0:0:0: [sda] 4096-byte physical blocks",
        "sd 0:0:0:0: [sda] Write Protect is off",
        "sd 0:0:0:0: [sda] Mode Sense: 0f 00 10 00",
        "sd 0:0:0:0: [sda] Write cache: enabled, read cache: enabled, supports DPO and FUA",
        "sd 0:0:0:0: [sda] Attached SCSI disk",
    ]
    assert guest.findings == []


def test_levels_are_those_of_the_source(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    levels = {line.text.split("] ")[-1].split(":")[0]: line.level for line in guest.kernel.printk.log}
    assert levels["Write Protect is off"] == 5
    assert levels["Mode Sense"] == 7
    assert levels["Attached SCSI disk"] == 5


def test_all_units_of_report_luns_are_found_and_get_their_names(make_guest: Any, fake_hba: Any) -> None:
    disks = {(0, 0, lun): bytearray(MIB) for lun in (0, 1, 7, 63)}
    guest, hba = start(make_guest, fake_hba, disks)
    assert [d.name for d in guest.kernel.block.disks] == ["sda", "sdb", "sdc", "sdd"]
    assert [s.lun for s in hba.host.devices] == [0, 1, 7, 63]
    # An empty target answers its first INQUIRY with an error and is asked nothing else.
    assert [cdb[0] for name, cdb in hba.log if name == "0:0:1:0"] == [proto.INQUIRY]


def test_disks_of_the_first_host_are_seen_first_though_it_answers_last(make_guest: Any, fake_hba: Any) -> None:
    guest = make_guest(config=SCSI)
    k = guest.kernel
    k.link()
    slow = fake_hba(guest, {(0, 0, 0): bytearray(MIB)})
    fast = fake_hba(guest, {(0, 0, 0): bytearray(2 * MIB)})
    answer = slow.answer
    slow.answer = lambda work: (k.sched.msleep(20), answer(work))

    def body() -> None:
        k.initcall.run("subsys", "late")
        for hba in (slow, fast):
            k.scsi.scsi_add_host(hba.host, Device("parent"))
            k.scsi.scsi_scan_host(hba.host)
        k.async_.async_synchronize_full()

    guest.call(body)
    found = [line for line in guest.lines if "Direct-Access" in line]
    assert [line.split()[1] for line in found] == ["1:0:0:0:", "0:0:0:0:"]
    assert [d.capacity for d in sorted(k.block.disks, key=lambda d: d.name)] == [2048, 4096]


def test_without_async_scan_the_caller_sees_the_devices_at_once(make_guest: Any, fake_hba: Any) -> None:
    guest = make_guest(config={**SCSI, "SCSI_SCAN_ASYNC": "n"})
    k = guest.kernel
    k.link()
    hba = fake_hba(guest, {(0, 0, 0): bytearray(MIB)})

    def body() -> Any:
        k.initcall.run("subsys", "late")
        k.scsi.scsi_add_host(hba.host, Device("parent"))
        k.scsi.scsi_scan_host(hba.host)
        return [s.registered for s in hba.host.devices]

    assert guest.call(body) == [True]


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_what_is_read_is_what_is_on_the_disk_and_what_is_written_gets_there(
    make_guest: Any, fake_hba: Any, page_size: Any
) -> None:
    data = bytearray(random.Random(page_size).randbytes(4 * MIB))
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): data}, guest_options={"page_size": page_size})
    k = guest.kernel
    disk = k.block.lookup("sda")
    whole = guest.call(k.block.read, disk, 0, disk.capacity)
    assert hashlib.sha256(whole).digest() == hashlib.sha256(data).digest()
    guest.call(k.block.write, disk, 100, b"\xa5" * 1536)
    assert data[51200:52736] == b"\xa5" * 1536
    assert guest.call(k.block.read, disk, 99, 5)[512:2048] == b"\xa5" * 1536
    reads = [cdb for _, cdb in hba.log if cdb[0] == proto.READ_10]
    assert max(int.from_bytes(cdb[7:9], "big") for cdb in reads) <= hba.host.max_sectors
    assert guest.findings == []


def test_nothing_is_left_allocated_after_a_scan_and_a_read(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 0, 8)
    assert guest.kernel.mm.leaks() == []


def test_blocks_of_4096_bytes(make_guest: Any, fake_hba: Any) -> None:
    data = bytearray(random.Random(1).randbytes(MIB))
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): data}, block=4096, physical=0)
    disk = guest.kernel.block.lookup("sda")
    assert (disk.capacity, disk.logical_block_size) == (2048, 4096)
    assert "sd 0:0:0:0: [sda] 256 4096-byte logical blocks: (1.05 MB/1.00 MiB)" in guest.lines
    assert guest.call(guest.kernel.block.read, disk, 8, 16) == data[4096 : 4096 * 3]
    with pytest.raises(BlockError, match="not whole blocks of 4096"):
        guest.call(guest.kernel.block.read, disk, 1, 1)


def test_reading_past_the_end_names_the_limit(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    disk = guest.kernel.block.lookup("sda")
    with pytest.raises(BlockError, match="beyond end of device: sectors 2047 to 2049, limit 2048"):
        guest.call(guest.kernel.block.read, disk, 2047, 2)


def test_a_failed_read_is_reported_as_the_kernel_does(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    hba.fail[proto.READ_10] = (2, bytes([0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0]))
    with pytest.raises(BlockError, match="sector 8 failed: Unrecovered read error"):
        guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 8, 1)
    tail = guest.lines[-5:]
    assert tail[0].endswith("FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK cmd_age=0s")
    assert tail[1].endswith("Sense Key : Medium Error [current] ")
    assert tail[2].endswith("Add. Sense: Unrecovered read error")
    assert tail[3].endswith("CDB: Read(10) 28 00 00 00 00 08 00 00 01 00")
    assert tail[4].startswith("critical medium error, dev sda, sector 8 op 0x0:(READ)")


def test_a_write_protected_disk_refuses_writes(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)}, wp=0x90)
    assert "sd 0:0:0:0: [sda] Write Protect is on" in guest.lines
    assert "sd 0:0:0:0: [sda] Write cache: disabled, read cache: enabled, supports DPO and FUA" in guest.lines
    with pytest.raises(BlockError, match="read-only"):
        guest.call(guest.kernel.block.write, guest.kernel.block.lookup("sda"), 0, bytes(512))


def test_a_busy_driver_is_asked_again(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    hba.busy = 3
    before = guest.machine.clock.now
    assert guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 0, 1) == bytes(512)
    assert guest.machine.clock.now - before >= 3 * 30_000


def test_commands_wait_for_a_place_when_the_host_is_full(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)}, can_queue=2)
    k = guest.kernel
    disk = k.block.lookup("sda")
    most: Any = []
    queue = hba.template.queuecommand

    def watch(host: Any, cmd: Any) -> Any:
        most.append(len(host.inflight))
        return queue(host, cmd)

    hba.template.queuecommand = watch
    done: Any = []

    def body() -> None:
        for n in range(8):
            k.sched.kthread_run(lambda n=n: done.append(k.block.read(disk, n, 1)), name=f"reader{n}", cpu=n % 2)
        while len(done) < 8:
            k.sched.msleep(1)

    guest.call(body)
    assert max(most) == 2
    assert len(done) == 8


def test_a_timed_out_command_without_handler_fails(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    hba.swallow.add(proto.READ_10)
    before = guest.machine.clock.now
    with pytest.raises(BlockError, match="DID_TIME_OUT"):
        guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 0, 1)
    assert 29.99 <= (guest.machine.clock.now - before) / 1e7 < 31
    assert "scsi-timeout" in guest.findings


def test_a_handler_can_ask_for_more_time(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)}, eh=True)
    hba.swallow.add(proto.READ_10)
    k = guest.kernel

    def late() -> None:
        k.sched.msleep(70_000)
        cmd = next(iter(hba.host.inflight.values()))
        cmd.result = 0
        k.scsi.scsi_done(cmd)

    def body() -> Any:
        k.sched.kthread_run(late, name="late")
        return k.block.read(k.block.lookup("sda"), 0, 1)

    assert len(guest.call(body)) == 512
    assert hba.timed_out == 2


def test_a_second_completion_is_a_finding(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    k = guest.kernel
    seen: Any = []
    answer = hba.answer

    def twice(work: Any) -> None:
        answer(work)
        seen.append(work.data)

    hba.answer = twice
    guest.call(k.block.read, k.block.lookup("sda"), 0, 1)
    assert guest.findings == []
    guest.call(k.scsi.scsi_done, seen[0])
    assert guest.findings == ["scsi-double-completion"]


def test_removing_the_host_takes_disk_and_devices(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB), (0, 0, 1): bytearray(MIB)})
    k = guest.kernel
    guest.call(k.scsi.scsi_remove_host, hba.host)
    assert k.block.disks == ()
    assert k.scsi.hosts == ()
    assert hba.host.devices == []
    assert "sd 0:0:0:0: [sda] Synchronizing SCSI cache" in guest.lines


def test_a_name_that_is_free_again_is_used_again(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB), (0, 0, 1): bytearray(MIB)})
    k = guest.kernel
    guest.call(k.scsi.scsi_remove_device, hba.host.devices[0])
    guest.call(k.scsi.scsi_add_device, hba.host, 0, 0, 0)
    guest.call(k.async_.async_synchronize_full)
    assert [d.name for d in k.block.disks] == ["sdb", "sda"]


def test_a_cdrom_is_named(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)}, type=5)
    assert "sr 0:0:0:0: [sr0] scsi-1 drive" in guest.lines
    assert guest.kernel.block.disks == ()


def test_generic_devices_are_numbered(make_guest: Any, fake_hba: Any) -> None:
    disks = {(0, 0, 0): bytearray(MIB), (0, 0, 1): bytearray(MIB)}
    guest, _ = start(make_guest, fake_hba, disks, config={"CHR_DEV_SG": "y"})
    generic = [line for line in guest.lines if "generic" in line]
    assert generic == [
        "scsi 0:0:0:0: Attached scsi generic sg0 type 0",
        "scsi 0:0:0:1: Attached scsi generic sg1 type 0",
    ]


@pytest.mark.parametrize(
    ("blocks", "size", "decimal", "binary"),
    [
        (62914560, 512, "32.2 GB", "30.0 GiB"),
        (117440512, 512, "60.1 GB", "56.0 GiB"),
        (2516582400, 512, "1.29 TB", "1.17 TiB"),
        (62916608, 512, "32.2 GB", "30.0 GiB"),
        (0, 512, "0 B", "0 B"),
        (1, 512, "512 B", "512 B"),
    ],
)
def test_sizes_are_those_of_real_logs(blocks: Any, size: Any, decimal: Any, binary: Any) -> None:
    assert proto.string_get_size(blocks, size, False) == decimal
    assert proto.string_get_size(blocks, size, True) == binary


def test_inquiry_strings_are_made_printable() -> None:
    from hvkernel.linux.scsi_scan import _sanitize

    raw = bytes(8) + b"Ms\x01t\0xyz" + b"Virtual\xff Disk   "[:16] + b"1.0\0" + b"tail\0"
    assert _sanitize(raw) == bytes(8) + b"Ms t    " + b"Virtual  Disk   " + b"1.0 " + b"tail\0"
    assert _sanitize(b"\0\0\5") == b"\0\0\5" + bytes(5) + b" " * 28
    assert _sanitize(bytes(8) + b"M\x01\x7f\x80    " + b"d" * 20 + b"tail\0") == (
        bytes(8) + b"M       " + b"d" * 20 + b"tail\0"
    )


def test_luns_survive_their_wire_format() -> None:
    for lun in (0, 1, 255, 256, 0x4001, 0x1234_5678):
        assert proto.scsilun_to_int(proto.int_to_scsilun(lun)) == lun


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x70", b"\x72\x05", b"\x7f" * 3])
def test_hostile_sense_data_is_never_an_error(raw: Any) -> None:
    sense = proto.normalize_sense(raw)
    assert sense is None or 0 <= sense.key < 16


@pytest.mark.parametrize("seed", range(20))
def test_random_schedules_read_the_same_bytes(make_guest: Any, fake_hba: Any, seed: Any) -> None:
    data = bytearray(random.Random(seed).randbytes(MIB // 4))
    guest, _ = start(
        make_guest, fake_hba, {(0, 0, 0): data, (0, 1, 0): bytearray(MIB)}, guest_options={"policy": f"random:{seed}"}
    )
    k = guest.kernel
    disk = next(d for d in k.block.disks if d.capacity == len(data) // 512)
    out: Any = {}

    def reader(n: Any) -> None:
        out[n] = k.block.read(disk, n * 16, 16)

    def body() -> None:
        for n in range(6):
            k.sched.kthread_run(reader, n, name=f"r{n}", cpu=n % 2)
        while len(out) < 6:
            k.sched.msleep(1)

    guest.call(body)
    assert all(out[n] == data[n * 8192 : (n + 1) * 8192] for n in range(6))
    assert guest.findings == []


def test_a_missing_target_is_no_error(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {})
    assert hba.host.devices == []
    assert not [line for line in guest.lines if "sd " in line]


def sense(key: int, asc: int, ascq: int = 0) -> bytes:
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])


class Scripted:
    """Answers some commands of a fake adapter by a function of the command: (result, sense, data, resid) or None."""

    def __init__(self, base: Any, answer: Any) -> None:
        self.base, self.answer_to = base, answer

    def __call__(self, guest: Any, disks: Any, **options: Any) -> Any:
        hba = self.base(guest, disks, **options)
        execute = hba.execute

        def scripted(cmd: Any) -> Any:
            got = self.answer_to(cmd)
            if got is None:
                return execute(cmd)
            cmd.resid = got[3]
            return got[:3]

        hba.execute = scripted
        return hba


def test_what_a_device_did_not_send_is_zero_in_the_guest(make_guest: Any, fake_hba: Any) -> None:
    def short(cmd: Any) -> Any:
        if cmd.cmnd[0] == proto.INQUIRY and not cmd.cmnd[1]:
            return 0, b"", bytes([0, 0, 5, 2, 0, 0, 0, 2]) + b"Msft    Stale secrets        ", cmd.transfersize - 16
        return None

    guest, _ = start(make_guest, Scripted(fake_hba, short), {(0, 0, 0): bytearray(MIB)})
    assert "scsi 0:0:0:0: Direct-Access     Msft                           PQ: 0 ANSI: 5" in guest.lines
    told = [line for line in guest.lines if "too short" in line]
    assert told == ["scsi host0: scsi scan: INQUIRY result too short (5), using 36"], "once a host"


def test_a_short_read_is_continued(make_guest: Any, fake_hba: Any) -> None:
    data = bytearray(random.Random(1).randbytes(MIB))
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): data})
    execute = hba.execute
    asked: list[tuple[int, int]] = []

    def short(cmd: Any) -> Any:
        if cmd.cmnd[0] != proto.READ_10:
            return execute(cmd)
        lba, count = int.from_bytes(cmd.cmnd[2:6], "big"), int.from_bytes(cmd.cmnd[7:9], "big")
        asked.append((lba, count))
        cmd.resid = max(0, count * 512 - 3 * 512 - 100) if count > 3 else 0
        return 0, b"", bytes(data[lba * 512 : lba * 512 + count * 512 - cmd.resid])

    hba.execute = short
    assert guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 16, 8) == data[16 * 512 : 24 * 512]
    assert asked == [(16, 8), (19, 5), (22, 2)]
    assert "sd 0:0:0:0: [sda] Unaligned partial completion (resid=2460, sector_sz=512)" in guest.lines


def test_a_disk_that_moves_nothing_and_says_success_holds_its_reader_up(make_guest: Any, fake_hba: Any) -> None:
    def nothing(cmd: Any) -> Any:
        return (0, b"", b"", cmd.transfersize) if cmd.cmnd[0] == proto.READ_10 else None

    with pytest.raises(Exception, match=r"idle|limit|block|stand"):
        start(make_guest, Scripted(fake_hba, nothing), {(0, 0, 0): bytearray(MIB)})


def test_did_error_is_tried_again_as_often_as_allowed(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    hba.fail[proto.READ_10] = (7 << 16, b"")
    hba.log.clear()
    with pytest.raises(BlockError, match="DID_ERROR"):
        guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 8, 1)
    assert len(hba.log) == 6
    assert guest.lines[-1].startswith("I/O error, dev sda, sector 8 op 0x0:(READ)")


def test_a_status_of_busy_is_waited_out(make_guest: Any, fake_hba: Any) -> None:
    left = [3]

    def busy(cmd: Any) -> Any:
        if cmd.cmnd[0] == proto.READ_10 and left[0]:
            left[0] -= 1
            return 8, b"", b"", cmd.transfersize
        return None

    guest, _ = start(make_guest, Scripted(fake_hba, busy), {(0, 0, 0): bytearray(b"x" * MIB)})
    assert guest.call(guest.kernel.block.read, guest.kernel.block.lookup("sda"), 0, 1) == b"x" * 512
    assert left == [0]


def test_a_unit_attention_is_told(make_guest: Any, fake_hba: Any) -> None:
    left = [1]

    def attention(cmd: Any) -> Any:
        if cmd.cmnd[0] == 0 and left[0]:
            left[0] -= 1
            return 2, sense(6, 0x29), b"", 0
        return None

    guest, _ = start(make_guest, Scripted(fake_hba, attention), {(0, 0, 0): bytearray(MIB)})
    at = guest.lines.index("sd 0:0:0:0: Power-on or device reset occurred")
    assert "[sda] 2048 512-byte" in guest.lines[at + 1]


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ((2, 0x3A), ["[sda] Media removed, stopped polling", "[sda] 0 512-byte logical blocks: (0 B/0 B)"]),
        ((5, 0x24), ["[sda] Unit Not Ready", "[sda] Sense Key : Illegal Request [current] "]),
    ],
)
def test_a_unit_that_is_not_ready(make_guest: Any, fake_hba: Any, code: Any, lines: Any) -> None:
    def refuse(cmd: Any) -> Any:
        medium = code[0] == 2 and cmd.cmnd[0] == 0x9E
        return (2, sense(*code), b"", 0) if cmd.cmnd[0] == 0 or medium else None

    guest, hba = start(make_guest, Scripted(fake_hba, refuse), {(0, 0, 0): bytearray(MIB)})
    found = [line.partition("sd 0:0:0:0: ")[2] for line in guest.lines if "sd 0:" in line]
    assert found[:2] == lines
    tests = [cdb for _, cdb in hba.log if cdb[0] == 0]
    assert len(tests) == (1 if code[0] == 2 else 3)


def test_a_disk_that_spins_up(make_guest: Any, fake_hba: Any) -> None:
    left = [7]

    def slow(cmd: Any) -> Any:
        if cmd.cmnd[0] == 0 and left[0]:
            left[0] -= 1
            return 2, sense(2, 4, 2), b"", 0
        return (0, b"", b"", 0) if cmd.cmnd[0] == 0x1B else None

    guest, hba = start(make_guest, Scripted(fake_hba, slow), {(0, 0, 0): bytearray(MIB)})
    assert "sd 0:0:0:0: [sda] Spinning up disk.....ready" in guest.lines
    assert [cdb for _, cdb in hba.log if cdb[0] == 0x1B] == [bytes([0x1B, 1, 0, 0, 1, 0])]


@pytest.mark.parametrize(
    ("last", "block", "line"),
    [
        ((1 << 64) - 2, 4096, "18446744073709551615 4096-byte logical blocks: (75.6 ZB/64.0 ZiB)"),
        ((1 << 64) - 1, 512, "0 512-byte logical blocks: (0 B/0 B)"),
        (99, 0, "Sector size 0 reported, assuming 512."),
        (99, 520, "Unsupported sector size 520."),
        (99, 0xFFFFFFB5, "2048 512-byte logical blocks: (1.05 MB/1.00 MiB)"),
    ],
)
def test_capacities_that_lie(make_guest: Any, fake_hba: Any, last: int, block: int, line: str) -> None:
    def lie(cmd: Any) -> Any:
        if cmd.cmnd[0] == 0x9E:
            return 0, b"", (last.to_bytes(8, "big") + block.to_bytes(4, "big")).ljust(32, b"\0"), 0
        if cmd.cmnd[0] == 0x25:
            return 0, b"", bytes([0, 0, 7, 255, 0, 0, 2, 0]), 0
        return (2, sense(5, 0x21), b"", 0) if cmd.cmnd[0] in (0x28, 0x88) else None

    guest, _ = start(make_guest, Scripted(fake_hba, lie), {(0, 0, 0): bytearray(MIB)})
    assert f"sd 0:0:0:0: [sda] {line}" in guest.lines


@pytest.mark.parametrize(
    ("length", "line"),
    [
        (0xFFFFFF00, "scsi_report_lun_scan: Allocation failure during SCSI scanning, some SCSI devices might not be "
         "configured"),
        (1 << 20, None),
    ],
)  # fmt: skip
def test_a_list_of_units_that_is_too_long(make_guest: Any, fake_hba: Any, length: int, line: Any) -> None:
    def lie(cmd: Any) -> Any:
        return (0, b"", length.to_bytes(4, "big") + bytes(4), 0) if cmd.cmnd[0] == proto.REPORT_LUNS else None

    guest, hba = start(make_guest, Scripted(fake_hba, lie), {(0, 0, 0): bytearray(MIB), (0, 0, 1): bytearray(MIB)})
    assert [text for text in guest.lines if "llocation" in text] == ([line] if line else [])
    assert [cdb[0] for _, cdb in hba.log].count(proto.REPORT_LUNS) == 1
    # Without the list the units are looked for one after the other; without memory they are not.
    assert [d.name for d in guest.kernel.block.disks] == (["sda"] if line else ["sda", "sdb"])


def test_vital_product_data_that_lie_about_their_length(make_guest: Any, fake_hba: Any) -> None:
    def lie(cmd: Any) -> Any:
        if cmd.cmnd[0] != proto.INQUIRY or not cmd.cmnd[1]:
            return None
        page = cmd.cmnd[2]
        body = bytes([0, page]) + (0xFFFF if page else 100).to_bytes(2, "big") + b"\xb0"
        if page and cmd.transfersize == 4:
            body = bytes([0, page, 0, 60])
        return 0, b"", body, 0

    guest, hba = start(make_guest, Scripted(fake_hba, lie), {(0, 0, 0): bytearray(MIB)})
    assert [line for line in guest.lines if "VPD page" in line] == [
        "scsi 0:0:0:0: scsi_get_vpd_size: long VPD page 0 length: 104 bytes",
        "scsi 0:0:0:0: scsi_get_vpd_buf: VPD page 0xb0 result 65539 > 64 bytes",
    ]
    assert bytes([0x12, 1, 0xB0, 0, 3, 0]) in [cdb for _, cdb in hba.log], "65539 bytes in a field of 16 bits"
    assert "sd 0:0:0:0: [sda] Attached SCSI disk" in guest.lines


def test_a_cache_that_cannot_be_written_back_is_told_at_shutdown(make_guest: Any, fake_hba: Any) -> None:
    guest, hba = start(make_guest, fake_hba, {(0, 0, 0): bytearray(MIB)})
    hba.fail[proto.SYNCHRONIZE_CACHE] = (2, sense(4, 0x44))
    hba.log.clear()
    guest.call(guest.kernel.scsi.scsi_remove_host, hba.host)
    assert [cdb[0] for _, cdb in hba.log].count(proto.SYNCHRONIZE_CACHE) == 3
    at = guest.lines.index("sd 0:0:0:0: [sda] Synchronizing SCSI cache")
    assert guest.lines[at + 1 : at + 4] == [
        "sd 0:0:0:0: [sda] Synchronize Cache(10) failed: Result: hostbyte=DID_OK driverbyte=DRIVER_OK",
        "sd 0:0:0:0: [sda] Sense Key : Hardware Error [current] ",
        "sd 0:0:0:0: [sda] Add. Sense: Internal target failure",
    ]
