"""The MMIO part of ``drivers/hv/vmbus_drv.c``: the windows that ACPI gives the bus, and ranges taken out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.abi.vmbus import VTPM_BASE_ADDRESS
from hvkernel.api.guest.device import IORESOURCE_MEM, Resource
from hvkernel.api.guest.errno import ENXIO

if TYPE_CHECKING:
    from hvkernel.api.guest.device import AcpiDevice
    from hvkernel.hv.hyperv_vmbus import HvVmbus

LOW_LIMIT: Final = 0x100000
SZ_128M: Final = 128 << 20
SZ_4G: Final = 4 << 30
MIN_FB_SIZE: Final = 0x800000
RESOURCE_32: Final = (1 << 32) - 1
RESOURCE_64: Final = (1 << 64) - 1
"""``resource_size_t`` without and with PHYS_ADDR_T_64BIT (include/linux/types.h)."""


def pR(res: Resource | None) -> str:
    """Format a memory resource as printk's ``%pR`` does."""
    if res is None:
        return "(null)"
    if res.start == res.end:
        return f"[mem 0x{res.start:08x}]"
    return f"[mem 0x{res.start:08x}-0x{res.end:08x}]"


def add_window(windows: list[Resource], start: int, end: int) -> None:
    """Enter a window, ascending; neighbours are merged, what lies below 1 MiB or over the vTPM is left out."""
    if end < LOW_LIMIT:
        return
    if start < VTPM_BASE_ADDRESS <= end:
        end = VTPM_BASE_ADDRESS - 1
    for at, old in enumerate(windows):
        if old.end + 1 == start:
            old.end = end
            return
        if old.start == end + 1:
            old.start = start
            return
        if old.start > end:
            windows.insert(at, Resource(start, end, "hyperv mmio", IORESOURCE_MEM))
            return
    windows.append(Resource(start, end, "hyperv mmio", IORESOURCE_MEM))


def _short_addresses(v: HvVmbus) -> bool:
    """Say whether ``phys_addr_t`` has 32 bits."""
    return v.arch.bits == 32 and not v.kernel.config.y("X86_PAE")


def vmbus_walk_resources(v: HvVmbus, device: AcpiDevice) -> None:
    """Read one device's _CRS: address windows, and the interrupt where it is in the extended form.

    A 32-bit kernel without PAE keeps 32 bits of an address: the window above 4 GiB folds into the space below.
    """
    mask = RESOURCE_32 if _short_addresses(v) else RESOURCE_64
    for window in device.crs:
        add_window(v.hyperv_mmio, window.start & mask, window.end & mask)
    for gsi in device.crs_irqs:
        v.vmbus_interrupt = gsi
        v.vmbus_irq = v.kernel.irq.irq_create_mapping(gsi, percpu=True)


def vmbus_reserve_fb(v: HvVmbus) -> None:
    """Keep the framebuffer's range out of what drivers can get, and print the windows.

    On Gen2 half of the space below 4 GiB from the framebuffer on, at most 128 MiB. On Gen1 the kernel takes BAR 0 of
    the PCI video adapter; the model's machine says the same range as the firmware's framebuffer.
    """
    firmware = v.kernel.machine.firmware
    start, size = firmware.framebuffer
    if firmware.efi:
        size = max(size & 0xFFFF_FFFF, MIN_FB_SIZE)
        low = v.hyperv_mmio[0].start
        if not low or low >> 32 or (start and start < low):
            digits = 8 if _short_addresses(v) else 16
            v.pr.pr_warn(f"Unexpected low mmio base 0x{low:0{digits}x}")
        else:
            start = start or low
            size = min((SZ_4G - start) // 2, SZ_128M)
    elif not size:
        return
    if not start:
        v.pr.pr_warn("Unexpected framebuffer mmio base of zero")
        return
    while v.fb_mmio is None and size >= LOW_LIMIT:
        v.fb_mmio = v.kernel.ioport.request_region(v.hyperv_mmio[0], start, size, "fb_range")
        size >>= 1
    second = v.hyperv_mmio[1] if len(v.hyperv_mmio) > 1 else None
    v.pr.pr_info(f"hv_mmio={pR(v.hyperv_mmio[0])},{pR(second)} fb={pR(v.fb_mmio)}")


def vmbus_allocate_mmio(
    v: HvVmbus, name: str, min: int, max: int, size: int, align: int, fb_overlap_ok: bool
) -> Resource | int:
    """Take ``size`` bytes out of the windows: the range, or -ENXIO.

    :param align: a power of two.
    :param fb_overlap_ok: try the framebuffer's own range first.
    """
    ioport = v.kernel.ioport
    iomem = ioport.iomem_resource
    fb = v.fb_mmio
    with v.hyperv_mmio_lock:
        if fb_overlap_ok and fb is not None and not min > fb.end and not max < fb.start:
            start = (fb.start + align - 1) & ~(align - 1)
            while start + size - 1 <= fb.end:
                new = ioport.request_region(iomem, start, size, name)
                if new is not None:
                    return new
                start += align
        for window in v.hyperv_mmio:
            if window.start >= max or window.end <= min:
                continue
            start = (window.start + align - 1) & ~(align - 1)
            while start + size - 1 <= window.end:
                end = start + size - 1
                in_fb = fb is not None and (fb.start <= start <= fb.end or fb.start <= end <= fb.end)
                shadow = None if in_fb else ioport.request_region(window, start, size, "")
                if shadow is not None:
                    new = ioport.request_region(iomem, start, size, name)
                    if new is not None:
                        shadow.name = name
                        return new
                    ioport.release_region(window, start, size)
                start += align
    return -ENXIO


def vmbus_free_mmio(v: HvVmbus, start: int, size: int) -> None:
    """Give back what :func:`vmbus_allocate_mmio` returned."""
    ioport = v.kernel.ioport
    fb = v.fb_mmio
    with v.hyperv_mmio_lock:
        if fb is None or not (start >= fb.start and start + size - 1 <= fb.end):
            for window in v.hyperv_mmio:
                if not (window.start >= start + size or window.end <= start):
                    ioport.release_region(window, start, size)
        ioport.release_region(ioport.iomem_resource, start, size)
