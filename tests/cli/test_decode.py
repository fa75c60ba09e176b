"""The command decode: exit status, one line for what cannot be read, output that does nothing to a terminal."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import hvkernel.trace
from hvkernel.boot.request import read_request
from hvkernel.boot.session import boot

CODE = "from hvkernel.cli import main; main()"
RESCIND = struct.pack("<III", 2, 0, 14)


def decode(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", CODE, "decode", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=120)


def test_a_boots_trace_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "boot.pcapng"
    boot(read_request(trace=[file]))
    done = decode("--json", file)
    assert (done.returncode, done.stderr) == (0, b"")
    document = json.loads(done.stdout)
    assert (document["schema"], document["file"], document["clean"]) == (1, str(file), True)
    (found,) = document["inputs"]
    assert found["kind"] == "pcapng"
    first = found["records"][0]["fields"][1]
    assert first["name"] == "CHANNELMSG_INITIATE_CONTACT"
    asked = next(row for row in first["fields"] if row["name"] == "vmbus_version_requested")
    assert asked["value"] == struct.unpack("<I", bytes.fromhex(asked["bytes"]))[0]
    assert file.read_bytes()[asked["offset"] : asked["offset"] + 4].hex() == asked["bytes"]


def test_standard_input_and_exit_status(tmp_path: Path) -> None:
    clean = decode("-", data=RESCIND.hex().encode())
    assert (clean.returncode, clean.stderr) == (0, b"")
    assert b"CHANNELMSG_RESCIND_CHANNELOFFER: relid 14" in clean.stdout
    short = decode("-", data=RESCIND[:-1])
    assert (short.returncode, short.stderr) == (1, b"")
    assert b"! vmbus_channel_rescind_offer has 12 bytes and ends after 11" in short.stdout
    assert decode("--as", "messages", "-", data=b"\xff" * 40).returncode in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("/no/such/file",), "/no/such/file: No such file or directory"),
        (("/",), "/: Is a directory"),
        ((), "FILE is missing; - reads standard input"),
        (("--as", "elf", "-"), "--as 'elf' is not known; choose from pcapng, synic, ring, messages, packets, hex"),
        (("--limit", "0", "-"), "Invalid value for '--limit': 0 is not in the range 1<=x<=1000000."),
        (("-",), "-: is empty"),
        (("--dissector", "-"), "--dissector takes no FILE"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(arguments: tuple[str, ...], text: str) -> None:
    done = decode(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [f"hvkernel: {text}"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"\xf0" * 33,
            "has 33 bytes that are no pcapng file, SynIC message slots, ring image, channel messages or ring ",
        ),
        (
            b"\xd4\xc3\xb2\xa1" + bytes(20),
            "is a pcap file; hvkernel writes and reads pcapng (editcap -F pcapng converts)",
        ),
        (b"Dear reader,\n", "is text, and no hex dump that is understood"),
        (b"f0 f0 f0", "has 3 bytes in a hex dump that are no pcapng file,"),
        (b"00 " * (6 << 20), f"has {18 << 20} bytes of text; a hex dump may have {16 << 20}"),
    ],
)
def test_garbage_is_said_to_be_garbage(data: bytes, text: str) -> None:
    done = decode("-", data=data)
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"hvkernel: -: {text}")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    done = decode(file)
    assert done.returncode == 2
    assert done.stderr.decode() == f"hvkernel: {file}: has more than the {64 << 20} bytes that are read\n"


def test_nothing_in_the_input_drives_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "boot.pcapng"
    boot(read_request(trace=[file]))
    evil = file.read_bytes().replace(b"vmbus", b"\x1b[2Jm")
    evil = evil.replace(b"seed", b"\x1b]0;")
    for form in ((), ("--json",)):
        done = decode(*form, "-", data=evil)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout
    name = tmp_path / "a\x1b[2Jb"
    assert b"\x1b" not in decode(name).stderr


@pytest.mark.usefixtures("unprivileged")
def test_a_file_that_may_not_be_read() -> None:
    from hvkernel.cli.decode import _read

    assert os.geteuid() != 0
    with pytest.raises(Exception, match=r"Permission denied"):
        _read("/etc/shadow")


def test_the_dissector_is_the_one_in_the_package() -> None:
    # Plugins that are installed beside the tree's would add theirs.
    done = decode("--dissector")
    text = Path(hvkernel.trace.__file__).with_name("vmbus.lua").read_bytes()
    assert done.returncode == 0
    assert done.stdout == text
