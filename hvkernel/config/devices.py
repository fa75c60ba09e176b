"""The devices of one VM: those of its host profile, or those that the VM file names.

A VM file may name kinds of the catalogue (``devices = ["dm", "ide"]``), and describe offers in full, among them such as
no Hyper-V makes: classes that nobody knows, reserved flags, socket offers, devices that come later.

.. code-block:: toml

   devices = ["dm", "ide"]
   offer_order = "random"

   [[device]]
   kind = "scsi"
   offered_at = 2.5

   [[device]]
   class_guid = "c0ffee00-0000-4000-8000-000000000001"
   flags = ["named-pipe-mode", 0x8000]
   monitored = true
   monitor_latency = 1000
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from hvkernel.abi import vmbus as abi
from hvkernel.config.profile import DEVICE_CLASSES, NAMESPACE, Device, HostProfile, Model

if TYPE_CHECKING:
    from hvkernel.config.vm import VmConfig

__all__ = ["FLAGS", "MAX_DEVICES", "VmDevice", "device_kinds", "vm_devices"]

MAX_DEVICES: Final = 2047
"""Channels of one VM, sub-channels included: relids 1 to 2047, one event flag each (TLFS: HV_EVENT_FLAGS_COUNT)."""

SECOND: Final = 10_000_000
"""Units of 100 ns in a second."""

FLAGS: Final[Mapping[str, int]] = MappingProxyType(
    {
        name.removeprefix("VMBUS_CHANNEL_").lower().replace("_", "-"): getattr(abi, name)
        for name in (
            "VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE",
            "VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES",
            "VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS",
            "VMBUS_CHANNEL_NAMED_PIPE_MODE",
            "VMBUS_CHANNEL_LOOPBACK_OFFER",
            "VMBUS_CHANNEL_PARENT_OFFER",
            "VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION",
            "VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER",
        )
    }
)
"""Names of an offer's flags in a VM file (include/linux/hyperv.h: ``VMBUS_CHANNEL_*``)."""


def device_kinds(values: Sequence[str]) -> tuple[str, ...]:
    """Return the catalogue's keys (``profiles/devices.toml``) of kinds as a user may call them.

    :raises ValueError: one that the catalogue does not have.
    """
    names = {name: kind for kind, cls in DEVICE_CLASSES.items() for name in (kind, *cls.aliases)}
    for value in values:
        if value not in names:
            close = difflib.get_close_matches(value, names, 1)
            hint = f"did you mean {close[0]!r}? It " if close else ""
            raise ValueError(f"no kind of device is called {value!r}; {hint}must be one of {', '.join(DEVICE_CLASSES)}")
    return tuple(names[value] for value in values)


class VmDevice(Model):
    """One offer of the VM, described in full. A class of the catalogue, or any other: then no plugin models it."""

    kind: Annotated[str, AfterValidator(lambda value: device_kinds((value,))[0])] | None = None
    """Class of the catalogue; instead of ``class_guid``."""
    class_guid: uuid.UUID | None = None
    """Any class (if_type of the offer)."""
    instance_guid: uuid.UUID | None = None
    """Identity of the device (if_instance); left out, one is made up, the same on every run."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)] | None = None
    """What reports call it, unique in the VM; left out, its kind (``device`` without one) and a number."""
    flags: tuple[str | Annotated[int, Field(ge=0, le=0xFFFF, strict=True)], ...] | None = None
    """chn_flags of the offer: names as ``named-pipe-mode``, or bits as a number, reserved ones too. Left out, those of
    the class. With ``named-pipe-mode`` the offer says VMBUS_PIPE_TYPE_MESSAGE."""
    user_defined: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$")] = ""
    """Bytes of the offer's user_def in hexadecimal; up to 120, 116 for a named pipe."""
    mmio_megabytes: Annotated[int, Field(ge=0, le=0xFFFF, strict=True)] | None = None
    """MMIO space that the offer asks for, MiB; left out, that of the class."""
    monitored: Annotated[bool, Field(strict=True)] = False
    """Whether the guest may signal through the monitor page."""
    monitor_latency: Annotated[int, Field(ge=0, le=0xFFFF, strict=True)] = 0
    """How long such a signal takes, in 100 ns units (struct hv_monitor_page: latency)."""
    subchannels: Annotated[int, Field(ge=0, lt=MAX_DEVICES, strict=True)] = 0
    """Sub-channels: of a device with a plugin what the guest may ask for, of another what is offered at its open."""
    offered_at: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """Virtual time in seconds before which the device is not offered."""

    @field_validator("flags", mode="after")
    @classmethod
    def _known_flags(cls, value: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        for flag in value or ():
            if isinstance(flag, str) and flag not in FLAGS:
                raise ValueError(f"no flag {flag!r}; must be bits as a number, or of {', '.join(FLAGS)}")
        return value

    @model_validator(mode="after")
    def _one_class(self) -> Self:
        if (self.kind is None) == (self.class_guid is None):
            raise ValueError("a device has a kind or a class_guid, not both")
        named = self.kind
        bits = self.bits
        pipe = DEVICE_CLASSES[named].pipe if bits is None and named else bool((bits or 0) & FLAGS["named-pipe-mode"])
        room = abi.MAX_PIPE_USER_DEFINED_BYTES if pipe else abi.MAX_USER_DEFINED_BYTES
        if len(self.user_defined) > 2 * room:
            raise ValueError(f"user_defined of {len(self.user_defined) // 2} bytes; this offer has room for {room}")
        return self

    @property
    def bits(self) -> int | None:
        """The flags as a number, ``None`` for those of the class."""
        if self.flags is None:
            return None
        value = 0
        for flag in self.flags:
            value |= FLAGS[flag] if isinstance(flag, str) else flag
        return value


def vm_devices(vm: VmConfig, profile: HostProfile, generation: int) -> tuple[Device, ...]:
    """Return the offers of a VM in the profile's order: ``vm.devices`` or the profile's own, then ``vm.device``.

    :raises ValueError: two devices of one name or identity, or more channels than there are relids.
    """
    if vm.devices is None and not vm.device:
        return profile.devices(generation)
    kinds = vm.devices if vm.devices is not None else profile.kinds(generation)
    found = list(profile.made(kinds))
    for entry in vm.device:
        found.append(_made(entry, found, profile))
    _distinct(found)
    return tuple(found)


def _made(entry: VmDevice, before: Sequence[Device], profile: HostProfile) -> Device:
    kind = entry.kind or next((k for k, c in DEVICE_CLASSES.items() if c.class_guid == entry.class_guid), "device")
    cls = DEVICE_CLASSES.get(kind)
    number = sum(device.kind == kind for device in before)
    class_guid = cls.class_guid if cls is not None else entry.class_guid
    assert class_guid is not None
    instance = cls.instance(kind, number) if cls is not None else uuid.uuid5(NAMESPACE, f"{class_guid}/{number}")
    mmio = entry.mmio_megabytes
    bits = entry.bits
    return Device(
        name=entry.name or f"{kind}{number}",
        kind=kind,
        class_guid=class_guid,
        instance_guid=entry.instance_guid or instance,
        protocols=profile.protocols.get(kind, ()),
        mmio_megabytes=mmio if mmio is not None else cls.mmio_megabytes if cls is not None else 0,
        pipe=bool(bits & FLAGS["named-pipe-mode"]) if bits is not None else cls is not None and cls.pipe,
        flags=bits,
        user_defined=bytes.fromhex(entry.user_defined),
        monitored=entry.monitored,
        monitor_latency=entry.monitor_latency,
        subchannels=entry.subchannels,
        offered_at=round(entry.offered_at * SECOND),
    )


def _distinct(devices: Sequence[Device]) -> None:
    names: dict[Any, str] = {}
    for device in devices:
        if device.name in names:
            raise ValueError(f"two devices are called {device.name!r}")
        key = (device.class_guid, device.instance_guid)
        if key in names:
            raise ValueError(f"{names[key]} and {device.name} have one class_guid and instance_guid")
        names[device.name] = names[key] = device.name
    channels = sum(1 + device.subchannels for device in devices)
    if channels > MAX_DEVICES:
        raise ValueError(f"{channels} channels; a VM has at most {MAX_DEVICES}")
