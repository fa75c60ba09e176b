"""Which CPU a channel interrupts: ``init_vp_index`` of ``drivers/hv/channel_mgmt.c``, and the map that it fills.

``hv_context.hv_numa_map`` has a mask of CPUs for each NUMA node: those that performance channels target, and those that
a search for one has passed over (drivers/hv/hyperv_vmbus.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.abi.vmbus import VERSION_WIN8, VMBUS_CONNECT_CPU
from hvkernel.hv.vmbus_devs import VMBUS_DEVS

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = [
    "hv_clear_allocated_cpu",
    "hv_cpuself_used",
    "hv_is_allocated_cpu",
    "hv_is_perf_channel",
    "hv_set_allocated_cpu",
    "hv_update_allocated_cpus",
    "init_vp_index",
]


def hv_is_perf_channel(channel: VmbusChannel) -> bool:
    """Say whether the channel is spread over the CPUs."""
    return VMBUS_DEVS[channel.device_id].perf_device


def hv_set_allocated_cpu(v: HvVmbus, cpu: int) -> None:
    """Remember that a performance channel targets ``cpu``."""
    v.hv_numa_map[v.cpus.cpu_to_node(cpu)] |= 1 << cpu


def hv_is_allocated_cpu(v: HvVmbus, cpu: int) -> bool:
    """Say whether a performance channel targets ``cpu``."""
    return any(
        hv_is_perf_channel(channel)
        and (channel.target_cpu == cpu or any(sc.target_cpu == cpu for sc in channel.sc_list))
        for channel in v.connection.chn_list
    )


def hv_clear_allocated_cpu(v: HvVmbus, cpu: int) -> None:
    """Forget ``cpu`` unless a channel still targets it."""
    if not hv_is_allocated_cpu(v, cpu):
        v.hv_numa_map[v.cpus.cpu_to_node(cpu)] &= ~(1 << cpu)


def hv_update_allocated_cpus(v: HvVmbus, old_cpu: int, new_cpu: int) -> None:
    """A performance channel moved."""
    hv_set_allocated_cpu(v, new_cpu)
    hv_clear_allocated_cpu(v, old_cpu)


def hv_cpuself_used(cpu: int, channel: VmbusChannel) -> bool:
    """Say whether another channel of the same device targets ``cpu``."""
    primary = channel.primary_channel
    if primary is None:
        return False
    return primary.target_cpu == cpu or any(sc is not channel and sc.target_cpu == cpu for sc in primary.sc_list)


def init_vp_index(v: HvVmbus, channel: VmbusChannel) -> None:
    """Choose the CPU that the channel interrupts.

    Slow devices get the connect CPU. Performance channels go round the NUMA nodes, and in a node over the CPUs that no
    such channel targets yet; all CPUs count as housekeeping ones (no ``isolcpus=``).
    """
    perf = hv_is_perf_channel(channel)
    if v.vmbus_proto_version < VERSION_WIN8 or not perf:
        channel.target_cpu = VMBUS_CONNECT_CPU
        if perf:
            hv_set_allocated_cpu(v, VMBUS_CONNECT_CPU)
        return
    ncpu = v.cpus.num_online_cpus()
    nodes = v.cpus.nr_node_ids()
    target = VMBUS_CONNECT_CPU
    for i in range(1, ncpu + 2):
        while True:
            node = v.next_numa_node_id
            v.next_numa_node_id += 1
            if node == nodes:
                v.next_numa_node_id = 0
                continue
            node_mask = sum(1 << cpu for cpu in v.cpus.cpumask_of_node(node))
            if node_mask:
                break
        available = v.hv_numa_map[node] ^ node_mask
        if not available:
            v.hv_numa_map[node] = 0
            available = node_mask
        target = (available & -available).bit_length() - 1
        v.hv_numa_map[node] |= 1 << target
        if channel.offermsg.sub_channel_index >= ncpu or i > ncpu or not hv_cpuself_used(target, channel):
            break
    channel.target_cpu = target
