"""What tests of all parts share: programs, the kernel's source, a user who may not read everything, the loom plugin."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from loom_guest import LoomGuest

    from hvkernel.boot.plugins import Plugins

ROOT = Path(__file__).parents[1]
KERNEL_TARBALL = Path("/usr/src/linux-source-6.1.tar.xz")
KERNEL_PARTS = (
    "tools/hv", "drivers/hv", "include/linux/hyperv.h", "arch/x86/include/asm/trace/hyperv.h",
    "include/linux/errno.h", "include/uapi/linux/errno.h",
    "include/uapi/asm-generic/errno.h", "include/uapi/asm-generic/errno-base.h",
    "Kconfig", "*/Kconfig", "*/Kconfig.*", "scripts/kconfig", "scripts/*.sh",
)  # fmt: skip
"""What tests use of the kernel's source. It is read where it lies and never becomes part of this project."""


# How long something takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def give_up(message: str) -> None:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    """Return the function that skips a test for want of something of the machine; in CI it fails the test."""
    return give_up


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Return a function that finds a program; where it is missing the test is skipped, but fails in CI."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            give_up(f"{name} is not installed (Debian package {package})")
        return str(found)

    return find


@pytest.fixture(scope="session")
def kernel_source() -> Path:
    """Return the root of Linux 6.1's source as Debian packs it, with :data:`KERNEL_PARTS` in it."""
    if not KERNEL_TARBALL.is_file():
        give_up(f"{KERNEL_TARBALL} is not there (Debian package linux-source-6.1)")
    build = ROOT / "build" / "kernel"
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stat = KERNEL_TARBALL.stat()
        stamp, wanted = build / "stamp", f"{stat.st_size} {stat.st_mtime_ns} {' '.join(KERNEL_PARTS)}"
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(build / "linux", ignore_errors=True)
            (build / "linux").mkdir()
            parts = [f"linux-source-6.1/{part}" for part in KERNEL_PARTS]
            subprocess.run(
                ["tar", "-xJf", KERNEL_TARBALL, "-C", build / "linux", "--strip-components=1", "--wildcards", *parts],
                check=True,
            )
            stamp.write_text(wanted)
    return build / "linux"


@pytest.fixture(scope="session")
def recorder() -> ModuleType:
    """tools/record_olddefconfig.py."""
    spec = importlib.util.spec_from_file_location("record_olddefconfig", ROOT / "tools" / "record_olddefconfig.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def conf(kernel_source: Path, program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the kernel's own conf, built from its source."""
    for name in ("gcc", "flex", "bison"):
        program(name, name)
    out = tmp_path_factory.mktemp("conf")
    subprocess.run(["sh", ROOT / "tools" / "build_conf.sh", kernel_source, out], check=True, capture_output=True)
    return out


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test as nobody when it would run as root, to whom every file is open."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# the loom plugin -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def loom_plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugins]:
    """Install the loom plugin (tests/data/plugins/hvkernel_loom) for the whole run, and load all plugins."""
    packages = str(ROOT / "tests/data/plugins")
    sys.path.insert(0, packages)
    from loom_guest import load_with_loom

    yield load_with_loom(tmp_path_factory.mktemp("loom"))
    sys.path.remove(packages)


@pytest.fixture
def loom(loom_plugins: Plugins) -> Iterator[Callable[..., LoomGuest]]:
    """Return a function that boots a guest with looms; all guests are closed at the end.

    It takes what ``compose_with_looms`` of tests/data/plugins/loom_guest.py takes but the plugins, and ``boot=False``
    for a guest that the test boots itself.
    """
    from loom_guest import compose_with_looms

    live: list[LoomGuest] = []

    def make(*args: Any, boot: bool = True, **more: Any) -> LoomGuest:
        guest = compose_with_looms(loom_plugins, *args, **more)
        live.append(guest)
        if boot:
            guest.session.boot()
            assert guest.session.report().outcome == "up", guest.session.report().reason
            guest.settle()
        return guest

    yield make
    for guest in live:
        guest.session.close()
