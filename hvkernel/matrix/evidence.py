"""A guest at one moment of a cell, in the plain words of :class:`hvkernel.api.matrix.Evidence`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from hvkernel.abi.vmbus import VmbusChannelState
from hvkernel.api.guest.hyperv import Vmbus
from hvkernel.api.matrix import Moment, Noticed, Reached, SeenChannel, SeenDevice
from hvkernel.boot.report import device_report
from hvkernel.host.vmbus.tables import ChannelState

if TYPE_CHECKING:
    from hvkernel.api.guest import Kernel
    from hvkernel.boot.session import Session
    from hvkernel.hv.hyperv_vmbus import HvVmbus
    from hvkernel.matrix.model import Cell

__all__ = ["SessionEvidence", "vmbus_of"]

T = TypeVar("T")


def vmbus_of(session: Session) -> HvVmbus | None:
    """Return the variables of the guest's hv_vmbus; ``None`` while it is not connected or not loaded."""
    try:
        exports: Any = session.kernel.symbol(Vmbus)
    except LookupError:
        return None
    found: HvVmbus = exports.v
    return found if found.connection.channels is not None else None


class SessionEvidence:
    """Implements :class:`hvkernel.api.matrix.Evidence`; what it says was so when it was first asked.

    :param call: runs a function in the guest within the cell's budget.
    :param vmbus_version: of the connection that was there last.
    :param kept: allocations that drivers may keep from their init on, as in :attr:`pages`.
    :param drives: by a device's name the drives of its class, and whether each drove it.
    """

    def __init__(
        self,
        session: Session,
        cell: Cell,
        moment: Moment,
        call: Callable[..., Any],
        vmbus_version: int,
        kept: Mapping[str, int] = MappingProxyType({}),
        drives: Mapping[str, Mapping[str, bool]] = MappingProxyType({}),
    ) -> None:
        self.session = session
        self.cell = cell
        self.moment = moment
        self.memory: dict[str, Any] = {}
        """What one invariant keeps; set anew for each of them."""
        self.vmbus_version = vmbus_version
        self.kept = kept
        self._drives = drives
        self._call = call

    def at(self, moment: Moment) -> SessionEvidence:
        """Return the same evidence for another moment: nothing has happened in between."""
        same = copy(self)
        same.moment = moment
        return same

    @property
    def values(self) -> Mapping[str, str]:
        return self.cell.by_axis

    @property
    def seed(self) -> int:
        return self.cell.seed

    @property
    def outcome(self) -> str:
        found = self.session.kernel.outcome
        return found.state if found is not None else "hung"

    @property
    def reason(self) -> str:
        found = self.session.kernel.outcome
        return found.reason if found is not None else ""

    @property
    def kernel(self) -> Kernel:
        # As for plugins (hv_register_drivers): the whole kernel fits the Protocol that drivers see of it.
        kernel: Any = self.session.kernel
        found: Kernel = kernel
        return found

    @cached_property
    def dmesg(self) -> tuple[str, ...]:
        return tuple([line.text for line in self.session.kernel.printk.log])

    @cached_property
    def findings(self) -> tuple[Noticed, ...]:
        return tuple(Noticed(one.kind, one.side, one.text, one.where) for one in self.session.machine.findings)

    @cached_property
    def devices(self) -> tuple[SeenDevice, ...]:
        session = self.session
        found = []
        for device in session.server.devices:
            status = device.status()
            row = device_report(session, status)
            found.append(
                SeenDevice(
                    status.name,
                    row.class_guid,
                    row.instance_guid,
                    row.driver,
                    row.module,
                    row.built,
                    row.state,
                    row.protocol,
                    device.spec.parameters.get("protocols", ()),
                    self._drives.get(status.name, MappingProxyType({})),
                )
            )
        return tuple(found)

    @cached_property
    def guest_channels(self) -> tuple[SeenChannel, ...]:
        vmbus = vmbus_of(self.session)
        if vmbus is None:
            return ()
        vp_of = vmbus.hv_common.hv_cpu_number_to_vp_number
        there = [(relid, one) for relid, one in enumerate(vmbus.connection.channels or ()) if one is not None]
        return tuple(
            SeenChannel(relid, is_open, vp_of(channel.target_cpu) if is_open else None)
            for relid, channel in there
            for is_open in (channel.state == VmbusChannelState.CHANNEL_OPENED_STATE,)
        )

    @cached_property
    def host_channels(self) -> tuple[SeenChannel, ...]:
        by_relid = self.session.server.by_relid
        return tuple(
            SeenChannel(relid, is_open, by_relid[relid].target_vp if is_open else None)
            for relid in sorted(by_relid)
            for is_open in (by_relid[relid].state is ChannelState.OPEN,)
        )

    @property
    def gpadls(self) -> int:
        return len(self.session.server.gpadls)

    @cached_property
    def shares(self) -> tuple[Reached, ...]:
        return tuple(Reached(one.gpa, one.pages, one.via) for one in self.session.machine.ledger.entries())

    @cached_property
    def pages(self) -> Mapping[str, int]:
        return Counter(page.caller for page in self.session.kernel.mm.leaks())

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        found: T = self._call(fn, *args)
        return found
