"""Tables and texts of hvkernel.hv against the kernel's own source, read where it lies."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import hvkernel.hv
from hvkernel.abi import guids
from hvkernel.abi.vmbus import VmbusChannelMessageType, VmbusDeviceType
from hvkernel.hv.channel_mgmt import channel_message_table
from hvkernel.hv.vmbus_devs import VMBUS_DEVS, VMBUS_UNSUPPORTED_DEVS

FILES = ("connection", "channel_mgmt", "channel", "vmbus_drv", "hv", "ring_buffer", "hv_common", "hv_debugfs")
CALL = re.compile(
    r"\b(pr_(?:emerg|alert|crit|err|warn|notice|info|debug)(?:_once|_ratelimited)?|dev_(?:err|warn|info|dbg)|WARN_ONCE)"
    r'\(([^;]*?"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*)',
    re.S,
)
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
SPECIFIER = re.compile(r"%(?:pUl|pR|0?\d*l*[diuxsp])")

NOT_HERE: Mapping[str, str] = {
    "Unable to allocate channel object": "kmalloc of small objects does not fail",
    "Unable to allocate device object for child device": "kmalloc of small objects does not fail",
    "Unable to allocate NUMA map": "kmalloc of small objects does not fail",
    "Unable to register primary channeln": "printed by the caller when a second channel directory fails",
    "Unable to set up channel sysfs files": "creating files in our sysfs does not fail",
    "Unable to parse Hyper-V ACPI interrupt": "our namespace gives interrupts already parsed",
    "Failed to set host visibility for new GPADL {}.": "isolated guests are not modelled",
    "Fail to set mem host visibility in GPADL teardown {}.": "isolated guests are not modelled",
    "Fail to map syinc message page.": "isolated guests are not modelled",
    "Fail to map syinc event page.": "isolated guests are not modelled",
    "Hyper-V: kmsg dump register error 0x{}": "registering a dumper does not fail",
    "Hyper-V: sysctl table register error": "there are no sysctls",
    "debugfs_hyperv: file {} not created": "creating files in our debugfs does not fail",
    "debugfs_hyperv: hyperv/{}/{}/ not created": "creating files in our debugfs does not fail",
}
"""Texts that the model cannot print, and why."""


def theirs(source: str) -> Iterator[tuple[str, str]]:
    """(function, text) of every message of a kernel file, format specifiers as {}."""
    for found in CALL.finditer(source):
        text = "".join(LITERAL.findall(found.group(2)))
        function = found.group(1).removesuffix("_once")
        yield function, SPECIFIER.sub("{}", text.replace("\\n", "").replace("%pa", "0x{}"))


def ours() -> set[tuple[str, str]]:
    """(function, text) of every call in hvkernel.hv with a string as an argument, formatted values as {}."""
    texts: set[tuple[str, str]] = set()
    for path in Path(hvkernel.hv.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for arg in node.args:
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
                    texts.add((function, arg.value))
                elif isinstance(arg, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in arg.values)
                    texts.add((function, "".join(str(part) for part in parts)))
    return texts


@pytest.mark.parametrize("name", FILES)
def test_every_message_of_the_kernel_can_be_printed(kernel_source: Path, name: str) -> None:
    source = (kernel_source / f"drivers/hv/{name}.c").read_text("utf-8")
    texts = ours()
    missing = [one for one in theirs(source) if one[1] not in NOT_HERE and one not in texts]
    assert missing == []


def test_the_exceptions_are_texts_of_the_kernel(kernel_source: Path) -> None:
    found = {text for name in FILES for _, text in theirs((kernel_source / f"drivers/hv/{name}.c").read_text("utf-8"))}
    assert set(NOT_HERE) <= found
    assert not set(NOT_HERE) & {text for _, text in ours()}


def test_channel_message_table(kernel_source: Path) -> None:
    """Handler, kind and least length of every message."""
    source = (kernel_source / "drivers/hv/channel_mgmt.c").read_text("utf-8")
    table = source[source.index("channel_message_table[CHANNELMSG_COUNT] = {") :]
    table = table[: table.index("};")]
    rows = re.findall(r"\{\s*(CHANNELMSG_\w+),\s*(\d),\s*(\w+),\s*(0|sizeof\(struct (\w+)\))\s*\}", table)
    assert len(rows) == int(VmbusChannelMessageType.CHANNELMSG_COUNT)
    handled = {row[0]: row for row in rows if row[2] != "NULL"}
    assert {VmbusChannelMessageType(number).name for number in channel_message_table} == set(handled)
    for number, entry in channel_message_table.items():
        _, nonblocking, handler, _, struct = handled[VmbusChannelMessageType(number).name]
        assert entry.message_handler.__name__ == handler
        assert entry.blocking is (nonblocking == "0")
        assert bool(entry.min_payload_len) is bool(struct)


def test_vmbus_devs(kernel_source: Path) -> None:
    source = (kernel_source / "drivers/hv/channel_mgmt.c").read_text("utf-8")
    table = source[source.index("vmbus_devs[] = {") :]
    rows = re.findall(r"\{ ?(\.[^{}]*)\}", table[: table.index("};")])
    assert len(rows) == len(VMBUS_DEVS)
    for row, mine in zip(rows, VMBUS_DEVS, strict=True):
        fields = dict(re.findall(r"\.(\w+) = (\w+)", row))
        guid = re.search(r"\b(HV_\w+_GUID)\b", row)
        assert mine.dev_type is VmbusDeviceType[fields["dev_type"]]
        assert mine.guid == (getattr(guids, guid.group(1)) if guid else None)
        assert mine.perf_device is (fields["perf_device"] == "true")
        assert mine.allowed_in_isolated is (fields["allowed_in_isolated"] == "true")
        assert mine.pref_ring_size == int(fields.get("pref_ring_size", "0"), 0)
    unsupported = re.search(r"vmbus_unsupported_devs\[\] = \{(.*?)\n\};", source, re.S)
    assert unsupported is not None
    names = re.findall(r"HV_\w+_GUID", unsupported.group(1))
    assert tuple(getattr(guids, name) for name in names) == VMBUS_UNSUPPORTED_DEVS
