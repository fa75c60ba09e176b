"""The machine that a VM describes: RAM ranges and virtual processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.machine import VpTopology

if TYPE_CHECKING:
    from hvkernel.config.vm import VmConfig

__all__ = ["ram_ranges", "topology"]

FOUR_GIB: Final = 1 << 32


def ram_ranges(size: int, low_end: int) -> tuple[tuple[int, int], ...]:
    """Return ``(start, bytes)`` of RAM: from zero up to ``low_end``, the rest from 4 GiB on.

    :param size: bytes of RAM.
    :param low_end: first byte above the RAM below 4 GiB; MMIO space follows it.
    """
    if size <= low_end:
        return ((0, size),)
    return ((0, low_end), (FOUR_GIB, size - low_end))


def topology(vm: VmConfig) -> tuple[VpTopology, ...]:
    """Return the VM's virtual processors, the boot processor first: VP *n* has hardware id *n*.

    *unspecified*: real hosts leave gaps in the hardware ids of VMs with several sockets; tests use such numbers.
    """
    nodes = [node.cpus for node in vm.numa] or [vm.cpus]
    homes = [node for node, count in enumerate(nodes) for _ in range(count)]
    return tuple(VpTopology(number, number, node) for number, node in enumerate(homes))
