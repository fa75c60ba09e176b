"""``hvkernel check``: text, JSON, fragment, exit status, and bad input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.config.checkreport import CheckReport

DATA = Path(__file__).parents[1] / "data"
CODE = "from hvkernel.cli import main; main()"


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def real(tmp_path: Path) -> Callable[[str], Path]:
    def unpack(name: str) -> Path:
        path = tmp_path / f"{name}.config"
        path.write_bytes(gzip.decompress((DATA / "configs" / f"{name}.config.gz").read_bytes()))
        return path

    return unpack


def test_a_kernel_that_runs(real: Callable[[str], Path]) -> None:
    config = real("azurelinux3-x86_64")
    done = check(config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{config}: Linux 6.6.134.1 x86 64-bit, 4K pages",
        "",
        "hyperv-gen1: runs",
        "",
        "hyperv-gen2: runs",
        "",
        "azure: runs",
    ]


def test_advice(real: Callable[[str], Path]) -> None:
    done = check(real("debian12-6.1.192-amd64"), "--target", "azure")
    assert done.returncode == 0
    assert "  advice: MEMORY_HOTPLUG_DEFAULT_ONLINE is n (line 1069), wanted one of" in done.stdout
    assert "    edit: CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE=y (not verified" in done.stdout


def test_a_kernel_that_does_not(real: Callable[[str], Path]) -> None:
    done = check(real("debian12-6.1.192-cloud-amd64"), "--to-release", "6.18", "--target", "azure")
    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "azure: fails" in lines
    assert "HYPERV=n: set to m, which a bool does not take; it counts as not set" in lines
    assert lines.count("edit: CONFIG_HYPERV=y") == 2  # once for the problems, once for the advice
    assert "lost    HYPERV_NET: m -> n (needs HYPERV_VMBUS, which is n)" in lines


def test_the_fragment_alone(real: Callable[[str], Path]) -> None:
    done = check(real("x86_64_defconfig_6.1"), "--target", "hyperv-gen2", "--fragment")
    assert (done.returncode, done.stdout) == (0, "CONFIG_HYPERV=y\n")


def test_json_reads_back(real: Callable[[str], Path]) -> None:
    done = check(real("x86_64_defconfig_6.1"), "--target", "wsl2", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["schema"] == 1
    report = CheckReport.model_validate_json(done.stdout)
    assert report.to_json() == done.stdout
    (target,) = report.targets
    assert {one.symbol: one.edits for one in target.problems}["VSOCKETS"] == ("CONFIG_VSOCKETS=y",)


KEYS = {
    "": ["schema", "kernel", "targets", "upgrade", "notes"],
    "kernel": ["file", "release", "kconfig", "arch", "bits", "page_size"],
    "targets": ["target", "title", "verdict", "reason", "problems", "advice", "unknown", "boot"],
    "problems": ["kind", "symbol", "wanted", "got", "line", "because", "edits", "verified", "why", "evidence"],
    "boot": ["outcome", "reason", "host", "agrees"],
    "upgrade": ["symbol", "kind", "before", "after", "because"],
}
"""What programs rely on. Another key or another meaning needs another number in ``schema``."""


def test_the_keys_of_the_report(real: Callable[[str], Path]) -> None:
    done = check(real("debian12-6.1.192-amd64"), "--to-release", "6.18", "--target", "azure", "--boot", "--json")
    report = json.loads(done.stdout)
    target = report["targets"][0]
    found = {
        "": report,
        "kernel": report["kernel"],
        "targets": target,
        "problems": target["problems"][0],
        "boot": target["boot"],
        "upgrade": report["upgrade"][0],
    }
    assert {name: list(part) for name, part in found.items()} == KEYS
    assert list(target["advice"][0]) == KEYS["problems"]
    assert report["schema"] == 1


def test_rules_of_ones_own(real: Callable[[str], Path], tmp_path: Path) -> None:
    rules = tmp_path / "ours.toml"
    rules.write_text(
        "title = 'Ours'\n[[rule]]\nkind = 'must-not'\nsymbols = ['HYPERV_UTILS']\nwhy = 'policy'\nevidence = 'ours'\n"
    )
    done = check(real("debian12-6.1.192-cloud-amd64"), "--rules", rules)
    assert done.returncode == 1
    assert "ours: fails" in done.stdout
    assert "edit: # CONFIG_HYPERV_UTILS is not set" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--target", "aws"], "--target: target = 'aws': must be one of azure"),
        (["--from-release", "6.1"], "--from-release: release = '6.1': needs --to-release"),
        (["--release", "6.1", "--to-release", "6.18"], "says what --from-release and --to-release say"),
        (["--to-release", "2.6"], "older than 5.15"),
        (["--release", "x"], "'x' is not a kernel release"),
        (["--arch", "riscv"], "architecture 'riscv' is not modelled"),
        (["--initrd", "/nonexistent"], "/nonexistent: No such file"),
        (["--rules", "/nonexistent"], "/nonexistent: No such file"),
        (["--rules", "/dev/null"], "/dev/null: title: is required"),
        (["--initrd", "/"], "/: Is a directory"),
        (["--initrd", "/dev/null"], "/dev/null: names no module"),
        (["--release", ""], "--release: '' is not a kernel release"),
        (["--release", "4.19"], "--release: release 4.19 is older than 5.15"),
        (["--from-release", "6.18", "--to-release", "6.12"], "--to-release: release = '6.12': must not be before 6.18"),
        (["--arch", "arm64"], "a .config of x86 (by its header), but arm64 was asked for"),
        (["--fragment", "--json"], "--fragment: prints the lines alone: not with --json"),
        (["--fragment", "--boot"], "--fragment: prints the lines alone: not with --boot"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_bad_input(arguments: list[str], text: str, real: Callable[[str], Path]) -> None:
    done = check(real("debian12-6.1.192-cloud-amd64"), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert text in line


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hello\n", ":1: not a .config line: 'hello'"),
        (b"", ": not a .config: it sets no symbol"),
        (b"CONFIG_SMP=y\n\x7fELF\0", ":2: not a .config: binary data (a zero byte)"),
        (b'CONFIG_A="\xe9"\n', ":1: not a .config: byte 0xe9 is not UTF-8"),
        (b"A" * ((16 << 20) + 1), ": larger than 16777216 bytes, not a .config"),
        (b"A" * (1 << 20), ":1: not a .config line: 'AAAAAAAAAAAAAAAAAA"),
        (b"CONFIG_SMP=y\nCONFIG_HYPERV=yes\n", ":2: CONFIG_HYPERV=yes: a value is y, m, n, a number or a string"),
        (b"CONFIG_HYPERV = y\n", ":1: not a .config line: 'CONFIG_HYPERV = y'"),
        (b"CONFIG_A=\x1b[31m\n", ":1: CONFIG_A=\\x1b[31m: a value is"),
        (b"# Linux/riscv 6.1.0 Kernel Configuration\nCONFIG_A=y\n", ":1: architecture 'riscv' is not modelled"),
        (b"# Linux/x86 4.19.0 Kernel Configuration\nCONFIG_A=y\n", ": release 4.19.0 is older than 5.15"),
        (b"# Linux/x86 next Kernel Configuration\nCONFIG_A=y\n", ": 'next' is not a kernel release such as"),
        (b"CONFIG_ARM64=y\nCONFIG_CPU_BIG_ENDIAN=y\n", ":2: CONFIG_CPU_BIG_ENDIAN=y: Hyper-V guests are little-endian"),
    ],
)
def test_a_file_that_is_no_config(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.config"
    path.write_bytes(content)
    done = check(path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hvkernel: {path}{text}")
    assert len(line) < 300


@pytest.mark.parametrize("path", ["/nonexistent", "/"])
def test_a_path_that_is_no_file(path: str) -> None:
    done = check(path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"hvkernel: {path}: cannot read: ")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_odd_files_that_are_configs(end: str, real: Callable[[str], Path], tmp_path: Path) -> None:
    """Foreign line ends, a byte order mark, a symbol set twice (the last line counts), a release to come."""
    text = real("azurelinux3-x86_64").read_text().replace("6.6.134.1", "7.2.0") + "CONFIG_HYPERV=n\nCONFIG_HYPERV=y\n"
    path = tmp_path / "odd.config"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    done = check(path, "--target", "hyperv-gen2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: Kconfig data of 7.1 serve 7.2.0" in done.stdout


def test_rules_and_names_are_shown_inert(real: Callable[[str], Path], tmp_path: Path) -> None:
    rules = tmp_path / "ours.toml"
    rules.write_text(
        "title = 'Ours'\n[[rule]]\nkind = 'must-not'\nsymbols = ['HYPERV']\nwhy = \"\\u001b[31mred\"\n"
        'evidence = "\\u001b]0;title"\n'
    )
    config = real("debian12-6.1.192-cloud-amd64")
    odd = config.rename(tmp_path / "\x1b[31m.config")
    for done, status in ((check(odd, "--rules", rules), 1), (check(odd, "--initrd", odd), 2)):
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\x1b[31m" in done.stdout + done.stderr
        assert done.returncode == status
