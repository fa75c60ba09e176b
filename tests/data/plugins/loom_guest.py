"""Guests with looms (the plugin beside this file), for tests and for the programs among them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel_loom.wire import CLASS

from hvkernel.abi.wire import Guid
from hvkernel.api.guest.hyperv import Vmbus
from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.config import VmConfig
from hvkernel.host.vmbus.devices import SlotSpec

if TYPE_CHECKING:
    from hvkernel_loom.vsc import Loom, LoomDriver

    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus
    from hvkernel.machine import VpTopology

CONFIGS: Final = Path(__file__).parents[1] / "configs"
INSTANCE: Final = "10030000-0000-4000-8000-{:012x}"
"""Instance GUIDs of looms; made up."""


@dataclass(frozen=True, slots=True)
class LoomGuest:
    """A guest whose VM has looms, or may get some."""

    session: Session

    @property
    def vmbus(self) -> HvVmbus:
        """The variables of the guest's ``hv_vmbus``."""
        exports: Any = self.session.kernel.symbol(Vmbus)
        found: HvVmbus = exports.v
        return found

    @property
    def channels(self) -> list[VmbusChannel]:
        """All channels of the guest, by relid."""
        return [channel for channel in self.vmbus.connection.channels or () if channel is not None]

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
    def findings(self) -> list[str]:
        """What was noticed, but for the posts to connection 4 that hosts before 5.0 refuse in the negotiation."""
        texts = [f"{found.kind}: {found.text}" for found in self.session.machine.findings]
        return [text for text in texts if not text.endswith("HvCallPostMessage: INVALID_CONNECTION_ID")]

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run ``fn`` as a kernel thread and return its value."""
        return self.session.call(fn, *args)

    def offer(self, number: int, parameters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Offer one more loom."""
        self.session.server.offer(loom_slot(number, parameters))

    def settle(self) -> None:
        """Let one second of virtual time pass, in which whatever was begun comes to its end."""
        self.session.machine.run(limit=10_000_000)


def loom_slot(number: int, parameters: Mapping[str, Any]) -> SlotSpec:
    """Describe loom ``number`` of a VM.

    :param parameters: as ``vsp.py`` of the plugin lists them.
    """
    given = MappingProxyType(dict(parameters))
    return SlotSpec(f"loom{number}", CLASS, Guid.parse(INSTANCE.format(number)), parameters=given)


def load_with_loom(path: Path) -> Plugins:
    """Install the loom plugin beside the in-tree ones, and load all.

    :param path: an empty directory for its metadata; its package lies beside this file.
    """
    info = path / "hvkernel_loom-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-loom\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hvkernel]\nhv_loom = hvkernel_loom\n")
    own = [entry for found in distributions(path=[str(path)]) for entry in found.entry_points]
    plugins = load([*entry_points(group="hvkernel"), *own])
    assert not plugins.faults, plugins.faults
    return plugins


def compose_with_looms(
    plugins: Plugins,
    config: str = "debian12-6.1.192-cloud-amd64",
    vm: Mapping[str, Any] | None = None,
    *,
    looms: Sequence[Mapping[str, Any]] = ({},),
    vps: Sequence[VpTopology] | None = None,
    **request: Any,
) -> LoomGuest:
    """Put a guest together whose host offers looms; it is not booted.

    :param config: name of a file in tests/data/configs.
    :param vm: the VM file as a dictionary: cpus, numa, host, seed, policy, ...
    :param looms: the parameters of each loom.
    :param request: further fields of a :class:`~hvkernel.boot.request.BootRequest`.
    """
    text = gzip.decompress((CONFIGS / f"{config}.config.gz").read_bytes()).decode()
    asked = BootRequest(config=text, config_name=config, vm=VmConfig.model_validate(vm or {}), **request)
    session = compose(asked, plugins, vps)
    assert not isinstance(session, Unsupported), session.report.reason
    guest = LoomGuest(session)
    for number, parameters in enumerate(looms):
        guest.offer(number, parameters)
    return guest
