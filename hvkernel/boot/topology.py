"""The machine that a VM describes: its virtual processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.machine import VpTopology

if TYPE_CHECKING:
    from hvkernel.config.vm import VmConfig

__all__ = ["topology"]


def topology(vm: VmConfig) -> tuple[VpTopology, ...]:
    """Return the VM's virtual processors, the boot processor first: VP *n* has hardware id *n*.

    *unspecified*: real hosts leave gaps in the hardware ids of VMs with several sockets; tests use such numbers.
    """
    nodes = [node.cpus for node in vm.numa] or [vm.cpus]
    homes = [node for node, count in enumerate(nodes) for _ in range(count)]
    return tuple(VpTopology(number, number, node) for number, node in enumerate(homes))
