"""One seed, one report: in two processes, and with two guests interleaved in one."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import Session, Unsupported, boot, compose
from hvkernel.config import VmConfig

CODE = "from hvkernel.cli import main; main()"


def run(config: Path, hash_seed: str, *more: str) -> bytes:
    command = [sys.executable, "-c", CODE, "boot", "--config", str(config), *more]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, timeout=120
    )
    return done.stdout


@pytest.mark.parametrize("more", [(), ("--seed", "7", "--policy", "random:3")], ids=["fifo", "random"])
@pytest.mark.parametrize("name", ["debian12-6.1.192-cloud-amd64", "azurelinux3-64k-aarch64"])
def test_two_processes_print_the_same_bytes(name: str, more: tuple[str, ...], tmp_path: Path, config: Any) -> None:
    file = tmp_path / "config"
    file.write_text(config(name))
    for form in (("--json",), ()):
        one, other = run(file, "1", *more, *form), run(file, "4711", *more, *form)
        assert one == other
        assert b"Vmbus version" in one


def test_another_seed_is_another_trace(config: Any) -> None:
    text = config("debian12-6.1.192-cloud-amd64")
    vm = {"policy": "random:1"}
    one, other = (
        boot(BootRequest(config=text, vm=VmConfig.model_validate({**vm, "seed": seed}))).to_json() for seed in (1, 2)
    )
    assert one != other


def requests(config: Any) -> list[BootRequest]:
    return [
        BootRequest(config=config(name), vm=VmConfig.model_validate(vm))
        for name, vm in (
            ("debian12-6.1.192-cloud-amd64", {"seed": 3}),
            ("debian12bpo-6.12.117-arm64-16k", {"seed": 4, "policy": "random:9"}),
        )
    ]


def composed(request: BootRequest) -> Session:
    session = compose(request)
    assert not isinstance(session, Unsupported)
    return session


def ended(session: Session) -> bool:
    return session.kernel.outcome is not None


def test_two_interleaved_guests_do_not_disturb_each_other(config: Any) -> None:
    solo = [boot(request).to_json() for request in requests(config)]
    sessions = [composed(request) for request in requests(config)]
    try:
        for session in sessions:
            session.kernel.start()
        slices = 0
        while any(session.kernel.outcome is None for session in sessions):
            for session in sessions:
                if session.kernel.outcome is None:
                    session.machine.run(partial(ended, session), steps=50)
                    slices += 1
        together = [session.report().to_json() for session in sessions]
    finally:
        for session in sessions:
            session.close()
    assert slices > 20
    assert together == solo
