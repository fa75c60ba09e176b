"""What tests of all parts share: programs, the kernel's source, a user who may not read everything, the loom plugin."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from hvkernel.abi.wire import Guid
from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.config import VmConfig
from hvkernel.host.vmbus.devices import DeviceTable, SlotSpec

if TYPE_CHECKING:
    from hvkernel_loom.vsc import Loom, LoomDriver

    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.machine import VpTopology

ROOT = Path(__file__).parents[1]
KERNEL_TARBALL = Path("/usr/src/linux-source-6.1.tar.xz")
KERNEL_PARTS = ("tools/hv", "drivers/hv", "include/linux/hyperv.h", "arch/x86/include/asm/trace/hyperv.h")
"""What tests use of the kernel's source. It is read where it lies and never becomes part of this project."""


def missing(message: str) -> None:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Return a function that finds a program; where it is missing the test is skipped, but fails in CI."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            missing(f"{name} is not installed (Debian package {package})")
        return str(found)

    return find


@pytest.fixture(scope="session")
def kernel_source() -> Path:
    """Return the root of Linux 6.1's source as Debian packs it, with :data:`KERNEL_PARTS` in it."""
    if not KERNEL_TARBALL.is_file():
        missing(f"{KERNEL_TARBALL} is not there (Debian package linux-source-6.1)")
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
                ["tar", "-xJf", KERNEL_TARBALL, "-C", build / "linux", "--strip-components=1", *parts], check=True
            )
            stamp.write_text(wanted)
    return build / "linux"


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

LOOM_INSTANCE = "10030000-0000-4000-8000-{:012x}"
"""Instance GUIDs of looms; made up."""


@dataclass(frozen=True, slots=True)
class LoomGuest:
    """A booted guest with looms (tests/data/plugins/hvkernel_loom)."""

    session: Session
    table: DeviceTable
    """Makes the devices; for offering more of them."""

    @property
    def looms(self) -> list[Loom]:
        """The driver's state of each loom that is bound now, in the order of their channels."""
        devices = [channel.device_obj for channel in self.channels if channel.primary_channel is None]
        drivers = ((device, device.driver) for device in devices if device is not None)
        return [device.driver_data for device, driver in drivers if driver is not None and driver.name == "hv_loom"]

    @property
    def driver(self) -> LoomDriver:
        """The module. Its functions may sleep: run them with :meth:`call`, or in tasks of the machine."""
        bus = self.session.kernel.driver.buses["vmbus"]
        registered: Any = next(drv for drv in bus.drivers if drv.name == "hv_loom")
        driver: LoomDriver = registered.probe.__self__
        return driver

    @property
    def channels(self) -> list[VmbusChannel]:
        """All channels of the guest, by relid."""
        vmbus: Any = self.session.kernel.symbol(_vmbus())
        return [channel for channel in vmbus.v.connection.channels or () if channel is not None]

    @property
    def findings(self) -> list[str]:
        """What was noticed, but for the posts to connection 4 that hosts before 5.0 refuse in the negotiation."""
        texts = [f"{found.kind}: {found.text}" for found in self.session.machine.findings]
        return [text for text in texts if not text.endswith("HvCallPostMessage: INVALID_CONNECTION_ID")]

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run ``fn`` as a kernel thread and return its value."""
        return self.session.call(fn, *args)

    def offer(self, number: int, parameters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Offer one more loom."""
        self.session.server.add_device(loom_slot(number, parameters), self.table)

    def settle(self) -> None:
        """Run until nothing is left to do for one second of virtual time."""
        self.session.machine.run(limit=10_000_000)


def _vmbus() -> type[Any]:
    from hvkernel.api.guest.hyperv import Vmbus

    return Vmbus


def loom_slot(number: int, parameters: Mapping[str, Any]) -> SlotSpec:
    """Describe loom ``number`` of a VM."""
    from hvkernel_loom.wire import CLASS

    return SlotSpec(
        f"loom{number}",
        CLASS,
        Guid.parse(LOOM_INSTANCE.format(number)),
        parameters=MappingProxyType(dict(parameters)),
    )


@pytest.fixture(scope="session")
def loom_plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugins]:
    """Install the loom plugin beside the in-tree ones, for the whole run, and load all."""
    path = tmp_path_factory.mktemp("loom")
    info = path / "hvkernel_loom-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-loom\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hvkernel]\nhv_loom = hvkernel_loom\n")
    packages = str(ROOT / "tests/data/plugins")
    sys.path.insert(0, packages)
    own = [entry for found in distributions(path=[str(path)]) for entry in found.entry_points]
    plugins = load([*entry_points(group="hvkernel"), *own])
    assert not plugins.faults, plugins.faults
    yield plugins
    sys.path.remove(packages)


@pytest.fixture
def loom(loom_plugins: Plugins) -> Iterator[Callable[..., LoomGuest]]:
    """Return a function that boots a guest with looms; all guests are closed at the end.

    ``loom(config, vm, looms=..., vps=..., boot=..., **request)``: ``config`` names a file in tests/data/configs, ``vm``
    is the VM file as a dictionary (cpus, numa, host, seed, policy, ...), ``looms`` has one dictionary of parameters
    for each loom (vsp.py of the plugin lists them), ``boot=False`` leaves the guest for the test to boot.
    """
    live: list[Session] = []

    def make(
        config: str = "debian12-6.1.192-cloud-amd64",
        vm: Mapping[str, Any] | None = None,
        *,
        looms: Sequence[Mapping[str, Any]] = ({},),
        vps: Sequence[VpTopology] | None = None,
        boot: bool = True,
        **request: Any,
    ) -> LoomGuest:
        text = gzip.decompress((ROOT / "tests/data/configs" / f"{config}.config.gz").read_bytes()).decode()
        asked = BootRequest(config=text, config_name=config, vm=VmConfig.model_validate(vm or {}), **request)
        session = compose(asked, loom_plugins, vps)
        assert not isinstance(session, Unsupported), session.report.reason
        live.append(session)
        table = DeviceTable()
        for _ in loom_plugins.call("hv_register_devices", registry=table):
            pass
        guest = LoomGuest(session, table)
        for number, parameters in enumerate(looms):
            guest.offer(number, parameters)
        if boot:
            session.boot()
            assert session.report().outcome == "up", session.report().reason
            guest.settle()
        return guest

    yield make
    for session in live:
        session.close()
