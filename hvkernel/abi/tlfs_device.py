"""Device interrupts as the hypervisor sees them.

The structs that contain an MSI differ in size by architecture and are in its own ``tlfs`` module.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.tlfs_hypercall import HvVpset
from hvkernel.abi.wire import Bits, Union, Wire, overlay, u8, u16, u32, u64, union, wire

HV_DEVICE_INTERRUPT_TARGET_MULTICAST: Final = 1
"""Interrupt target: deliver to every VP of the set. (include/asm-generic/hyperv-tlfs.h:595 @6.1.192)"""
HV_DEVICE_INTERRUPT_TARGET_PROCESSOR_SET: Final = 2
"""Interrupt target: a VP set is given instead of a 64-bit mask. (include/asm-generic/hyperv-tlfs.h:596 @6.1.192)"""
HV_SOURCE_SHADOW_NONE: Final = 0x0
"""PCI device id: no shadow bus range. (include/asm-generic/hyperv-tlfs.h:774 @6.1.192)"""
HV_SOURCE_SHADOW_BRIDGE_BUS_RANGE: Final = 0x1
"""PCI device id: shadow_bus_range holds a bridge's buses. (include/asm-generic/hyperv-tlfs.h:775 @6.1.192)"""


class HvInterruptSource(IntEnum):
    """Where a device interrupt comes from, in ``hv_interrupt_entry``.

    Source: include/asm-generic/hyperv-tlfs.h:554 @6.1.192
    """

    HV_INTERRUPT_SOURCE_MSI = 1
    HV_INTERRUPT_SOURCE_IOAPIC = 2


class HvDeviceType(IntEnum):
    """Top two bits of `HvDeviceId`: which arm is meant.

    Source: include/asm-generic/hyperv-tlfs.h:664 @6.1.192
    """

    HV_DEVICE_TYPE_LOGICAL = 0
    HV_DEVICE_TYPE_PCI = 1
    HV_DEVICE_TYPE_IOAPIC = 2
    HV_DEVICE_TYPE_ACPI = 3


class HvInterruptTriggerMode(IntEnum):
    """Trigger mode in `HvDeviceInterruptDescriptor`.

    Source: include/asm-generic/hyperv-tlfs.h:743 @6.1.192
    """

    HV_INTERRUPT_TRIGGER_MODE_EDGE = 0
    HV_INTERRUPT_TRIGGER_MODE_LEVEL = 1


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:559 @6.1.192")
class HvIoapicRte(Union):
    """An I/O APIC redirection entry."""

    __kernel__ = "hv_ioapic_rte"

    as_uint64: u64
    vector: Annotated[int, Bits(u32, 8)]
    delivery_mode: Annotated[int, Bits(u32, 3)]
    destination_mode: Annotated[int, Bits(u32, 1)]
    delivery_status: Annotated[int, Bits(u32, 1)]
    interrupt_polarity: Annotated[int, Bits(u32, 1)]
    remote_irr: Annotated[int, Bits(u32, 1)]
    trigger_mode: Annotated[int, Bits(u32, 1)]
    interrupt_mask: Annotated[int, Bits(u32, 1)]
    reserved1: Annotated[int, Bits(u32, 15)]
    reserved2: Annotated[int, Bits(u32, 24)] = overlay(4)
    destination_id: Annotated[int, Bits(u32, 8)]
    low_uint32: u32
    high_uint32: u32 = overlay(4)


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:598 @6.1.192")
class HvDeviceInterruptTarget(Wire):
    """Which VPs get a device interrupt; the set's banks follow and are the variable header."""

    __kernel__ = "hv_device_interrupt_target"

    vector: u32
    flags: u32
    vp_set: HvVpset
    vp_mask: u64 = overlay(8)


@union(size=2, source="include/asm-generic/hyperv-tlfs.h:674 @6.1.192")
class HvPciBdf(Union):
    """Bus, device and function."""

    __kernel__ = "hv_pci_bdf"

    as_uint16: u16
    function: Annotated[int, Bits(u8, 3)]
    device: Annotated[int, Bits(u8, 5)]
    bus: u8 = overlay(1)


@union(size=2, source="include/asm-generic/hyperv-tlfs.h:684 @6.1.192")
class HvPciBusRange(Union):
    """A bridge's buses."""

    __kernel__ = "hv_pci_bus_range"

    as_uint16: u16
    subordinate_bus: u8
    secondary_bus: u8 = overlay(1)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:693 @6.1.192")
class HvDeviceIdLogical(Wire):
    """HV_DEVICE_TYPE_LOGICAL."""

    id: Annotated[int, Bits(u64, 62)]
    device_type: Annotated[int, Bits(u64, 2)]


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:693 @6.1.192")
class HvDeviceIdPci(Wire):
    """HV_DEVICE_TYPE_PCI."""

    rid: u16
    segment: u16
    shadow_bus_range: HvPciBusRange
    phantom_function_bits: Annotated[int, Bits(u16, 2)]
    source_shadow: Annotated[int, Bits(u16, 1)]
    rsvdz0: Annotated[int, Bits(u16, 11)]
    device_type: Annotated[int, Bits(u16, 2)]
    bdf: HvPciBdf = overlay(0)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:693 @6.1.192")
class HvDeviceIdIoapic(Wire):
    """HV_DEVICE_TYPE_IOAPIC."""

    ioapic_id: u8
    rsvdz0: u8
    rsvdz1: u16
    rsvdz2: u16
    rsvdz3: Annotated[int, Bits(u16, 14)]
    device_type: Annotated[int, Bits(u16, 2)]


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:693 @6.1.192")
class HvDeviceIdAcpi(Wire):
    """HV_DEVICE_TYPE_ACPI."""

    input_mapping_base: u32
    input_mapping_count: Annotated[int, Bits(u32, 30)]
    device_type: Annotated[int, Bits(u32, 2)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:693 @6.1.192")
class HvDeviceId(Union):
    """Names a device to the hypervisor; the arms are told apart by device_type."""

    __kernel__ = "hv_device_id"

    as_uint64: u64
    reserved0: Annotated[int, Bits(u64, 62)]
    device_type: Annotated[int, Bits(u64, 2)]
    logical: HvDeviceIdLogical
    pci: HvDeviceIdPci
    ioapic: HvDeviceIdIoapic
    acpi: HvDeviceIdAcpi


@wire(size=40, source="include/asm-generic/hyperv-tlfs.h:748 @6.1.192")
class HvDeviceInterruptDescriptor(Wire):
    """What HvCallMapDeviceInterrupt is to set up."""

    __kernel__ = "hv_device_interrupt_descriptor"

    interrupt_type: u32
    trigger_mode: u32
    vector_count: u32
    reserved: u32
    target: HvDeviceInterruptTarget
