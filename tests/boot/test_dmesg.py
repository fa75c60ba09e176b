"""The modelled log against real ones: the text and order of log 01, and what always precedes what in all logs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[1] / "data"
PATTERNS = {name: re.compile(text) for name, text in tomllib.loads((DATA / "dmesg/messages.toml").read_text()).items()}
PAIRS = [
    (before, after)
    for before, after, count in json.loads((DATA / "dmesg/ordering.json").read_text())["always_before"]
    if count >= 8
]
CONFIGS = sorted(path.name.removesuffix(".config.gz") for path in (DATA / "configs").glob("*.config.gz"))

# The parts of log 01 that are built, by how their lines begin. Disk sizes and names of the real VM differ.
BUILT = re.compile(
    r"Hypervisor detected|Hyper-V: |clocksource: (hyperv|refined-jiffies|jiffies|Switched)|tsc: |"
    r"Booting paravirtualized|DMI: |hv_vmbus: (Vmbus version|registering driver hv_storvsc)"
)


def log_01() -> list[str]:
    texts = []
    for line in (DATA / "dmesg/01-azure-gen2.txt").read_text().splitlines():
        match = re.match(r"\[ *\d+\.\d{6}\] (.*)", line)
        if match:
            texts.append(match[1])
    return texts


def test_the_hyper_v_lines_are_those_of_log_01(start: Any) -> None:
    report = start("debian12-6.1.192-cloud-amd64", {"host": "azure-gen2"}).report()
    ours = [line.text for line in report.dmesg if BUILT.match(line.text)]
    real = [text for text in log_01() if BUILT.match(text)]
    mmio = [text for text in ours if "hv_mmio=" in text]
    assert mmio == []
    assert ours == real


SCSI = re.compile(r"(scsi host\d|(?:scsi|sd|sr) \d:0:0:\d+): ")
CAPACITY = re.compile(r"\d+ 512-byte logical blocks: .*")


def by_device(texts: list[str]) -> dict[str, list[str]]:
    """The lines of each SCSI host and unit, in order, without the numbers that follow from the real VM's disks."""
    found: dict[str, list[str]] = {}
    for text in texts:
        match = SCSI.match(text)
        if match:
            unit = re.sub(r"^\D+(?=\d:)", "", match[1])
            found.setdefault(unit, []).append(CAPACITY.sub("N blocks", text))
    return found


@pytest.mark.parametrize("unit", ["scsi host0", "scsi host1", "0:0:0:0", "0:0:0:2"])
def test_the_lines_of_each_disk_are_those_of_log_01(unit: str, start: Any) -> None:
    report = start("debian12-6.1.192-cloud-amd64", {"host": "azure-gen2"}).report()
    # sg is a module of its own, which that system loaded late; what a later read of the empty drive printed is not a
    # boot's; the console was too busy for sr's second line.
    other = re.compile(r"generic|tag#|Attached scsi CD-ROM")
    ours = [
        text
        for text in by_device([line.text for line in report.dmesg if line.level < 7])[unit]
        if not other.search(text)
    ]
    real = [text for text in by_device(log_01())[unit] if not other.search(text)]
    assert real
    assert ours == real


def test_the_one_line_that_6_1_192_added_stands_before_the_version(start: Any) -> None:
    report = start("debian12-6.1.192-cloud-amd64", {"host": "azure-gen2"}).report()
    bus = [line.text for line in report.dmesg if line.text.startswith("hv_vmbus: ")]
    assert re.fullmatch(
        r"hv_vmbus: hv_mmio=\[mem 0x[0-9a-f]+-0x[0-9a-f]+\],\[mem 0x[0-9a-f]+-0x[0-9a-f]+\] fb=.*", bus[0]
    )
    assert bus[1] == "hv_vmbus: Vmbus version:4.0"


def test_every_id_of_the_ordering_has_a_pattern() -> None:
    ids = {
        name for pair in json.loads((DATA / "dmesg/ordering.json").read_text())["always_before"] for name in pair[:2]
    }
    assert ids == set(PATTERNS)


def test_the_patterns_find_their_messages_in_the_real_logs() -> None:
    texts = log_01()
    found = {name for name, pattern in PATTERNS.items() if any(pattern.search(text) for text in texts)}
    # The console of log 01 glues the heartbeat's and the KVP daemon's lines to other output.
    absent = {"nested", "unkguid", "vss", "sock", "cold", "fpr", "hb", "kvp"}
    assert set(PATTERNS) - found == absent


@pytest.mark.parametrize("name", CONFIGS)
def test_messages_come_in_the_order_of_the_real_logs(name: str, start: Any) -> None:
    texts = [line.text for line in start(name).report().dmesg]
    first = {
        key: next((at for at, text in enumerate(texts) if pattern.search(text)), None)
        for key, pattern in PATTERNS.items()
    }
    wrong = []
    compared = 0
    for before, after in PAIRS:
        a, b = first[before], first[after]
        if a is None or b is None:
            continue
        compared += 1
        if a > b:
            wrong.append((before, after))
    assert wrong == []
    # An arm64 or Hyper-V-less kernel prints few of the messages; the others must really have been compared.
    assert compared >= 60 or "arm" in name or "aarch64" in name or "defconfig" in name
