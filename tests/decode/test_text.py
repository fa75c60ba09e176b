"""Hex dumps: of the programs that print them, and as people write them."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.decode.text import read_dump

DATA = random.Random(4).randbytes(70) + bytes(64) + b"ab cd 00 11  " * 3


def kernel(data: bytes, row: int, prefix: str) -> str:
    """As print_hex_dump() prints it, with ASCII."""
    lines = []
    for at in range(0, len(data), row):
        part = data[at : at + row]
        text = "".join(chr(c) if 32 <= c < 127 else "." for c in part)
        lines.append(f"[   12.{at:06}] {prefix}{at:08x}: {part.hex(' '):<{row * 3 - 1}}  {text}")
    return "\n".join(lines)


def wireshark(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(c) if 32 <= c < 127 else "." for c in part)
        left = f"{part[:8].hex(' ')}  {part[8:].hex(' ')}".rstrip()
        lines.append(f"{at:04x}  {left:<48}   {text[:8]} {text[8:]}")
    return "\n".join(lines)


def xxd(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        words = " ".join(part[i : i + 2].hex() for i in range(0, len(part), 2))
        text = "".join(chr(c) if 32 <= c < 127 else "." for c in part)
        lines.append(f"{at:08x}: {words:<39}  {text}")
    return "\n".join(lines)


FORMS: dict[str, Callable[[bytes], str]] = {
    "xxd": xxd,
    "wireshark": wireshark,
    "kernel 16": lambda data: kernel(data, 16, "hv_vmbus: "),
    "kernel 32": lambda data: kernel(data, 32, ""),
    "plain": lambda data: data.hex(),
    "pairs": lambda data: data.hex(" ", 1).upper(),
    "wrapped": lambda data: "\n".join(data[at : at + 24].hex(" ") for at in range(0, len(data), 24)),
    "C": lambda data: "{ " + ", ".join(f"{byte:#x}" for byte in data) + " };",
    "escapes": lambda data: "'" + "".join(f"\\x{byte:02x}" for byte in data) + "'",
    "crlf": lambda data: xxd(data).replace("\n", "\r\n") + "\r\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 8, 9, 12, 16, 20, 70, len(DATA)])
def test_a_dump_is_read_back(form: str, size: int) -> None:
    for data in (DATA[:size], DATA[-size:]):
        (dump,) = read_dump(FORMS[form](data))
        assert (dump.data, dump.problems) == (data, ())


@pytest.mark.parametrize(
    ("name", "package", "arguments"),
    [
        ("xxd", "xxd", []),
        ("xxd", "xxd", ["-g1"]),
        ("xxd", "xxd", ["-p"]),
        ("xxd", "xxd", ["-i"]),
        ("hexdump", "bsdextrautils", []),
        ("hexdump", "bsdextrautils", ["-C"]),
        ("od", "coreutils", ["-A", "x", "-t", "x1"]),
        ("od", "coreutils", ["-A", "x", "-t", "x1z"]),
        ("od", "coreutils", ["-A", "x", "-x"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else value,
)
def test_what_real_programs_print(
    name: str, package: str, arguments: list[str], tmp_path: Path, program: Callable[[str, str], str]
) -> None:
    file = tmp_path / "data"
    file.write_bytes(DATA + bytes(len(DATA) % 2))
    done = subprocess.run([program(name, package), *arguments, str(file)], capture_output=True, text=True, check=True)
    text = (
        "\n".join(done.stdout.partition("{")[2].partition("}")[0].splitlines()) if arguments == ["-i"] else done.stdout
    )
    (dump,) = read_dump(text)
    assert (dump.data, dump.problems) == (file.read_bytes(), ())


def test_two_dumps_in_one_text() -> None:
    first, second = DATA[:40], DATA[40:60]
    found = read_dump(kernel(first, 16, "up: ") + "\n" + kernel(second, 16, "down: "))
    assert [dump.data for dump in found] == [first, second]


def test_what_does_not_fit_is_said() -> None:
    lines = xxd(DATA[:48]).splitlines()
    (dump,) = read_dump("\n".join([lines[0], "and then", lines[2]]))
    assert dump.data == DATA[:16] + DATA[32:48]
    assert dump.problems == ("line 2 is no line of a hex dump", "line 3 has offset 0x20, 0x10 bytes came before it")


def test_a_repeat_line_stands_for_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvkernel.decode.text.MAX_BYTES", 4096)
    (dump,) = read_dump(f"00000000  {bytes(16).hex(' ')}\n*\nfffffffffffffff0  {bytes(16).hex(' ')}\n")
    assert len(dump.data) <= 4096 + 16


@pytest.mark.parametrize("text", ["hello world", "", "0x", "abc", "zz 00", "de ad be e", "struct foo { int a; };"])
def test_other_text_is_no_dump(text: str) -> None:
    assert read_dump(text) == []


def test_a_long_line_is_read_in_time_that_its_length_justifies() -> None:
    # Every word could be an offset, were it tried: the square of the length.
    (dump,) = read_dump("0123 " * 60_000)
    assert dump.data == bytes.fromhex("0123") * 60_000


def test_words_without_a_colon_have_the_low_byte_first() -> None:
    data = struct.pack("<HHH", 0x0102, 0x0304, 0x0506)
    (dump,) = read_dump("0000000 0102 0304 0506\n0000006\n")
    assert dump.data == data
