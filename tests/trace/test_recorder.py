"""--trace: which files, what is refused before anything boots, and that watching changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, boot
from hvkernel.config.errors import InputError
from hvkernel.trace.formats import FORMATS
from hvkernel.trace.sink import BUFFER, Output

CODE = "from hvkernel.cli import main; main()"
SUFFIXES = [suffix for one in FORMATS for suffix in one.suffixes]


def cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, "boot", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_every_suffix_belongs_to_one_format() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_and_a_traced_run_are_the_same_run(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"boot{suffix}"
    plain = boot(read_request(policy="random:5"))
    assert boot(read_request(policy="random:5", trace=[file])).to_json() == plain.to_json()
    assert file.stat().st_size > 10_000


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = ([tmp_path / f"{n}{suffix}" for suffix in SUFFIXES] for n in (1, 2))
    for files, hash_seed in ((one, "1"), (other, "4711")):
        options = [word for file in files for word in ("--trace", str(file))]
        done = cli("--seed", "9", "--policy", "random:2", *options, PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stderr
    for a, b in zip(one, other, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_two_traced_guests_do_not_disturb_each_other(tmp_path: Path, recorded: Callable[..., Session]) -> None:
    options: list[dict[str, Any]] = [{"seed": 3}, {"arch": "arm64", "page_size": "16K", "policy": "random:9"}]
    solo, mixed = ([tmp_path / f"{how}{n}.pftrace" for n in range(2)] for how in ("solo", "mixed"))
    for file, given in zip(solo, options, strict=True):
        boot(read_request(trace=[file], **given))
    sessions = [recorded(file, **given) for file, given in zip(mixed, options, strict=True)]
    for session in sessions:
        session.kernel.start()
    while any(session.kernel.outcome is None for session in sessions):
        for session in sessions:
            if session.kernel.outcome is None:
                session.machine.run(partial(ended, session), steps=50)
    for session in sessions:
        session.close()
    assert [file.read_bytes() for file in mixed] == [file.read_bytes() for file in solo]


def ended(session: Session) -> bool:
    return session.kernel.outcome is not None


@pytest.mark.parametrize("name", ["boot.pdf", "boot", ".ftrace"])
def test_an_unknown_suffix_is_refused(name: str, tmp_path: Path) -> None:
    done = cli("--trace", tmp_path / name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"hvkernel: --trace: file = {str(tmp_path / name)!r}: the suffix of a trace says its format, "
        f"and must be one of {', '.join(SUFFIXES)}\n"
    )


def test_a_vm_that_cannot_run_leaves_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    done = cli("--host", "ws2022/gen2", "--bits", "32", "--trace", file)
    assert done.returncode == 1, done.stderr
    assert "unsupported" in done.stdout
    assert not file.exists()


def test_a_file_is_named_once(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(InputError, match=r"^--trace: file = '.*a\.txt': is named twice$"):
        read_request(trace=[file, file])


@pytest.mark.parametrize(
    ("name", "problem"), [("no/such/a.txt", "No such file or directory"), ("dir.txt", "Is a directory")]
)
def test_a_file_that_cannot_be_written_is_known_before_the_boot(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "dir.txt").mkdir()
    good = tmp_path / "good.txt"
    done = cli("--trace", good, "--trace", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"hvkernel: {tmp_path / name}: {problem}\n"


def test_events_go_to_the_file_as_they_come(tmp_path: Path, recorded: Callable[..., Session]) -> None:
    file = tmp_path / "a.pftrace"
    session = recorded(file, cpus=32)
    session.boot()
    assert session.recorder is not None
    (sink,) = session.recorder.sinks
    assert file.stat().st_size > BUFFER
    assert sink.output._held < BUFFER
    session.close()
    assert file.stat().st_size > 2 * BUFFER


def test_a_full_disk_is_told_at_the_end() -> None:
    link = Path("/dev/full")
    output = Output(link)
    output.write(b"x" * 100_000)
    assert output.error is not None
    output.write(b"more")
    with pytest.raises(OSError, match="No space left"):
        output.close()
    output.close()


def test_the_command_says_that_a_trace_could_not_be_written(tmp_path: Path) -> None:
    file = tmp_path / "a.ftrace"
    file.symlink_to("/dev/full")
    done = cli("--trace", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"hvkernel: {file}: No space left on device\n"


def test_a_pipe_takes_the_lines_alone(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe.txt", tmp_path / "file.txt"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    done = cli("--trace", pipe, "--trace", file)
    assert done.returncode == 0, done.stderr
    out, _ = reader.communicate(timeout=60)
    assert out == b"".join(line for line in file.read_bytes().splitlines(True) if not line.startswith(b"#"))


@pytest.mark.parametrize("how", ["panic", "limit", "budget"])
def test_a_trace_is_complete_however_the_run_ends(
    how: str, tmp_path: Path, recorded: Callable[..., Session], monkeypatch: Any
) -> None:
    file = tmp_path / "a.txt"
    options: dict[str, Any] = {}
    if how == "panic":
        options["initrd"] = "none"
        config = tmp_path / "config"
        config.write_text(str(read_request().config).replace("CONFIG_HYPERV_STORAGE=y", "CONFIG_HYPERV_STORAGE=n"))
        options["config"] = config
    session = recorded(file, **options)
    if how == "limit":
        session.boot(limit=1_000_000)
    elif how == "budget":
        session.kernel.start()
        session.machine.run(steps=1500)
    else:
        session.boot()
    if how != "budget":
        assert session.kernel.outcome is not None
        assert session.kernel.outcome.state == {"panic": "panic", "limit": "hung"}[how]
    session.close()
    lines = file.read_text().splitlines()
    events = [line for line in lines if not line.startswith("#")]
    online = "#P:1" if how == "panic" else "#P:4"  # panic() stops the other CPUs
    assert lines[2].split() == ["#", "entries-in-buffer/entries-written:", f"{len(events)}/{len(events)}", online]
    assert events
