"""``make run``, without the installing: what its script boots, with and without a mkfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = "build/debian12-6.1.192-cloud-amd64.config"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the script where only the programs named are found; ``hvkernel`` prints what it is called with."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "gzip", "mkdir", "truncate"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    hvkernel = tmp_path / "hvkernel"
    hvkernel.write_text('#!/bin/sh\necho "$@"\n')
    hvkernel.chmod(0o755)

    def script(**programs_given: str) -> subprocess.CompletedProcess[str]:
        for name, text in programs_given.items():
            (programs / name.replace("_", ".")).write_text(text)
            (programs / name.replace("_", ".")).chmod(0o755)
        return subprocess.run(
            ["sh", ROOT / "tools" / "run.sh", tmp_path],
            cwd=tmp_path,
            env=os.environ | {"PATH": str(programs), "SBIN": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return script


def test_a_machine_without_any_mkfs_boots_a_blank_disk(run: Run, tmp_path: Path) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (0, f"boot --config {CONFIG}\n")
    assert "so the disk is a blank one" in done.stderr
    assert (tmp_path / CONFIG).read_bytes().startswith(b"#\n# Automatically generated file")


@pytest.mark.parametrize("name", ["mkfs_ext4", "mkfs_ext2", "mkfs_vfat"])
def test_any_mkfs_makes_the_disk(name: str, run: Run, tmp_path: Path) -> None:
    done = run(**{name: '#!/bin/sh\nfor disk do :; done\nprintf made >"$disk"\n'})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"boot --config {CONFIG} --disk build/disk.img\n"
    assert (tmp_path / "build/disk.img").read_bytes() == b"made"
