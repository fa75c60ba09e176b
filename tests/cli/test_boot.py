"""``hvkernel boot``: what it prints, its exit status, and every kind of bad input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"
CODE = "from hvkernel.cli import main; main()"
Run = subprocess.CompletedProcess[str]


def boot(*arguments: str | Path) -> Run:
    command = [sys.executable, "-c", CODE, "boot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def real(tmp_path: Path) -> Callable[[str], Path]:
    def unpack(name: str) -> Path:
        path = tmp_path / f"{name}.config"
        path.write_bytes(gzip.decompress((DATA / "configs" / f"{name}.config.gz").read_bytes()))
        return path

    return unpack


def refused(done: Run, text: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("hvkernel: ")
    assert text in line


def test_without_a_config_everything_is_built_in_and_up() -> None:
    done = boot()
    assert (done.returncode, done.stderr) == (0, "")
    assert "hv_vmbus: Vmbus version:4.0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("up (Linux 6.1 x86 64-bit, 4K pages, on azure-gen2/gen2, VMBus 4.0")


def test_json_has_the_documented_shape(real: Callable[[str], Path]) -> None:
    done = boot("--config", real("debian12-6.1.192-cloud-amd64"), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert list(document) == [
        "schema", "outcome", "reason", "seed", "kernel", "host", "vmbus", "dmesg", "devices", "sharing", "findings",
        "notes",
    ]  # fmt: skip
    assert (document["schema"], document["outcome"], document["reason"]) == (1, "up", None)
    assert document["kernel"] == {"release": "6.1.192", "arch": "x86", "bits": 64, "page_size": 4096, "hz": 250}
    assert document["host"] == {"profile": "azure-gen2", "generation": 2, "build": "10.0.20348.3020-3-0"}
    assert document["vmbus"] == {"version": "4.0"}
    scsi = next(device for device in document["devices"] if device["class"] == "scsi")
    assert scsi["class_guid"] == "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
    assert (scsi["driver"], scsi["module"], scsi["built"], scsi["state"]) == ("hv_storvsc", "hv_storvsc", "m", "bound")
    assert scsi["protocol"] == "6.2"
    assert {device["state"] for device in document["devices"]} == {"bound", "not-modelled"}
    assert {share["via"].split()[0] for share in document["sharing"]} >= {"hypercall", "simp", "siefp", "reference"}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("debian12-6.1.192-cloud-arm64", ("--host", "azure-gen2"), "host azure-gen2 runs x86 guests"),
        ("alpine-virt.x86", ("--host", "ws2019/gen2"), "generation 2 starts 64-bit kernels only"),
        ("x86_64_defconfig_6.1", ("--host", "ws2022/gen1"), ""),
    ],
)
def test_a_legal_config_on_a_vm_that_cannot_run_it_is_status_1(
    name: str, arguments: tuple[str, ...], reason: str, real: Callable[[str], Path]
) -> None:
    done = boot("--config", real(name), *arguments)
    assert done.returncode == 1
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert reason in last
    assert last.startswith(("unsupported: ", "panic: "))


def test_a_panic_is_status_1(real: Callable[[str], Path]) -> None:
    done = boot("--config", real("x86_64_defconfig_6.1"))
    assert done.returncode == 1
    assert "VFS: Unable to mount root fs on unknown-block(0,0)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("panic: VFS: Unable to mount root fs")


CONFIGS = {
    "empty": ("", ""),
    "a picture": ("\x89PNG\r\n\x1a\n\0\0", ""),
    "a program": ("int main(void)\n{\n}\n", ":1"),
    "truncated": (
        "# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_64",
        ":3",
    ),
    "32-bit Arm": ("# Linux/arm 6.1.0 Kernel Configuration\nCONFIG_ARM=y\n", "32-bit Arm"),
    "big-endian": ("CONFIG_ARM64=y\nCONFIG_CPU_BIG_ENDIAN=y\n", ":2"),
    "other architecture": ("# Linux/riscv 6.1.0 Kernel Configuration\nCONFIG_RISCV=y\n", "riscv"),
    "no value": ("CONFIG_64BIT=y\nCONFIG_HYPERV=\n", ":2"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_bad_config_is_one_line_and_status_2(kind: str, tmp_path: Path) -> None:
    text, where = CONFIGS[kind]
    file = tmp_path / "config"
    file.write_bytes(text.encode("latin-1"))
    done = boot("--config", file)
    refused(done, str(file))
    assert where in done.stderr


def test_a_config_of_another_architecture_than_asked(real: Callable[[str], Path]) -> None:
    refused(boot("--config", real("debian12-6.1.192-cloud-amd64"), "--arch", "arm64"), "x86")


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "No such file or directory"), (0, "multiple of 512"), (513, "513"), (-1, "not a file")],
)
def test_a_bad_disk_is_one_line_and_status_2(size: int | None, text: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    if size == -1:
        disk.mkdir()
    elif size is not None:
        disk.write_bytes(b"\0" * size)
    done = boot("--disk", disk)
    refused(done, str(disk))
    if size != -1:
        assert text in done.stderr


VMS = {
    "cpu = 4": "cpu: unknown key",
    "cpus = 0": "cpus = 0",
    "cpus = 9999": "cpus = 9999",
    "cpus = 'many'": "cpus",
    "generation = 3": "generation = 3",
    "host = 'ws2008r2'\ngeneration = 2": "generation = 2",
    "page_size = 8192": "page_size = 8192",
    "memory = '63M'": "memory",
    "host = 'ws1999'": "ws1999",
    "policy = 'lifo'": "policy = 'lifo'",
    "seed = -1": "seed = -1",
    "cpus = [": "is not TOML",
    "disks = ['/nowhere/disk.img']": "/nowhere/disk.img",
    "disks = [{size = 0}]": "disks[0].size = 0: must be a multiple of 512 from 2M to 64T",
    "disks = [{size = '65T'}]": "disks[0].size = '65T'",
    "disks = [{path = 'x', size = '4M'}]": "size is that of a blank disk; x has its own",
    "disks = [{path = 'x', read_only = 'no'}]": "disks[0].read_only = 'no': must be true or false",
    "memory = '1T'": "memory = '1T': azure-gen2 has at most 1044992M",
}


@pytest.mark.parametrize("body", VMS)
def test_a_bad_vm_file_is_one_line_and_status_2(body: str, tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text(body + "\n")
    done = boot("--vm", file)
    refused(done, VMS[body])
    if "disks" not in body:
        assert str(file) in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--cpus", "0"), "cpus = 0"),
        (("--memory", "64T"), "memory = '64T': azure-gen2 has at most"),
        (("--arch", "i386", "--bits", "64"), "--bits: word size = 64: --arch i386 has 32 bits"),
        (("--cpus", "four"), "'four' is not a valid integer"),
        (("--memory", "lots"), "memory = 'lots'"),
        (("--host", "ws2022/gen3"), "generation = 'gen3'"),
        (("--host", "xen"), "host = 'xen'"),
        (("--page-size", "8K"), "page size = '8K'"),
        (("--page-size", "64K"), "x86 has 4096 only"),
        (("--bits", "16"), "16"),
        (("--arch", "riscv"), "architecture = 'riscv'"),
        (("--policy", "lifo"), "policy = 'lifo'"),
        (("--seed", "-3"), "seed = -3"),
        (("--release", "latest"), "latest"),
        (("--release", "4.19"), "--release: release 4.19 is older than 5.15"),
        (("--initrd", "/nowhere/list"), "/nowhere/list: No such file or directory"),
        (("--config", "/nowhere/config"), "/nowhere/config"),
        (("--vm", "/nowhere/vm.toml"), "/nowhere/vm.toml: No such file or directory"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(arguments: tuple[str, ...], text: str) -> None:
    refused(boot(*arguments), text)


@pytest.mark.parametrize(("start", "end"), [(b"", b"\r\n"), (b"\xef\xbb\xbf", b"\n")])
def test_a_config_saved_by_an_editor_of_windows_is_read(start: bytes, end: bytes, real: Callable[[str], Path]) -> None:
    file = real("debian12-6.1.192-cloud-amd64")
    expected = boot("--config", file, "--json")
    file.write_bytes(start + file.read_bytes().replace(b"\n", end))
    done = boot("--config", file, "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")


def test_the_names_of_x86_settle_the_word_size(real: Callable[[str], Path]) -> None:
    assert " x86 32-bit, " in boot("--arch", "i386").stdout.splitlines()[-1]
    assert " x86 64-bit, " in boot("--arch", "x86_64", "--config", real("alpine-virt.x86")).stdout.splitlines()[-1]
    assert " x86 32-bit, " in boot("--arch", "x86", "--config", real("alpine-virt.x86")).stdout.splitlines()[-1]


def test_a_generation_alone_picks_the_default_host_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text("generation = 1\n")
    done = boot("--vm", file)
    assert done.returncode == 0
    assert "on ws2022/gen1, VMBus 5.3" in done.stdout.splitlines()[-1]
    refused(boot("--vm", file, "--arch", "arm64"), "generation = 1: host azure-arm64 has generation 2 only")


def test_a_blank_disk_has_the_size_of_the_vm_file(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text("disks = [{size = '4M'}]\n")
    done = boot("--vm", file)
    assert done.returncode == 0
    assert "[sda] 8192 512-byte logical blocks: (4.19 MB/4.00 MiB)" in done.stdout


def test_an_option_that_does_not_fit_is_blamed_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text("seed = 1\n")
    refused(boot("--vm", file, "--cpus", "2048"), "command line: cpus = 2048: host azure-gen2 has at most 1024")


def test_messages_do_not_blame_a_file_when_none_was_given() -> None:
    assert "note: default configuration names no release: read as a defconfig of 6.1" in boot().stdout


def test_a_file_name_that_is_no_text_is_made_visible(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.config")
    file.write_text("CONFIG_HYPERV=y\n")
    shown = f"{tmp_path}/\\udcff.config names no release: read as a defconfig of 6.1"
    assert shown in json.loads(boot("--config", file, "--json").stdout)["notes"]
    assert f"note: {shown}\n" in boot("--config", file).stdout


def test_the_name_of_a_file_cannot_drive_the_terminal() -> None:
    refused(boot("--config", "/nowhere/\x1b[31mconfig"), "/nowhere/\\x1b[31mconfig: cannot read")
