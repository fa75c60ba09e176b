"""Host profiles: what one release of Hyper-V announces, accepts and offers.

A profile is a TOML file under ``profiles/`` (its stem is the profile's name). Each value comes from a real boot log,
from a published source, or is generic; ``sources`` says which for every part, and the word ``unspecified`` stands
there where nothing was found and the value was chosen to be plausible for the release.
"""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hvkernel.config.errors import InputError
from hvkernel.config.render import input_error

__all__ = [
    "DEVICE_CLASSES",
    "NAMESPACE",
    "Acpi",
    "Build",
    "Cpu",
    "Cpuid",
    "Device",
    "DeviceClass",
    "HostProfile",
    "MemoryMap",
    "Throttle",
    "Vmbus",
    "load_profile",
    "profile_names",
]

NAMESPACE: Final = uuid.UUID("a5a1c9be-7a4e-5d2c-9d0b-2f5c8e3f6a10")
"""Namespace of the instance GUIDs that no source gives: UUIDv5 of ``class/index``, the same on every run."""

Generation = Literal[1, 2]

CONNECTION_4: Final = 5 << 16
"""First protocol version whose hosts take messages at connection id 4 (drivers/hv/connection.c:
vmbus_negotiate_version)."""


OLDEST: Final = 13
"""0.13 (include/linux/hyperv.h: VERSION_WS2008), the one version below 1.0."""


def _version(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and (value >> 16 or value == OLDEST):
        return value  # a version already; vmbus = 4 would be 0.4
    match = re.fullmatch(r"(\d{1,5})\.(\d{1,5})", str(value))
    if match is None:
        raise ValueError("a protocol version is MAJOR.MINOR")
    return int(match[1]) << 16 | int(match[2])


Version = Annotated[int, BeforeValidator(_version)]
"""``major << 16 | minor``, written ``"5.3"``."""
U32 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]


class Model(BaseModel):
    """Base of everything read from a file: frozen, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Build(Model):
    """The hypervisor's version (TLFS: CPUID leaf 0x40000002, HvRegisterHypervisorVersion)."""

    major: U32
    minor: U32
    number: U32
    service_number: U32 = 0
    service_pack: U32 = 0
    service_branch: U32 = 0

    @property
    def text(self) -> str:
        """As Linux 6.1 prints it after ``Host Build``."""
        return (
            f"{self.major}.{self.minor}.{self.number}.{self.service_number}-{self.service_pack}-{self.service_branch}"
        )

    @property
    def words(self) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of the leaf."""
        return (
            self.number,
            self.major << 16 | self.minor,
            self.service_pack,
            self.service_branch << 24 | self.service_number,
        )


class Cpu(Model):
    """The virtual processor as the guest sees it."""

    vendor: Literal["GenuineIntel", "AuthenticAMD", "ARM"]
    """Decides the hypercall instruction on x86 (TLFS: Establishing the Hypercall Interface)."""
    counter_hz: Annotated[int, Field(gt=0)]
    """Frequency of the TSC, or of the architected counter."""
    apic_hz: Annotated[int, Field(ge=0)] = 200_000_000
    """Frequency of the local APIC timer; 0 where there is none."""
    x2apic: bool = False
    """Whether CPUID leaf 1 announces x2APIC mode."""
    max_apic_id: Annotated[int, Field(ge=0)] = 254


class Cpuid(Model):
    """The words that announce privileges, features and recommendations (TLFS: Feature and Interface Discovery)."""

    max_leaf: Annotated[int, Field(ge=0x4000_0005, le=0x4000_FFFF)]
    privileges_low: U32
    privileges_high: U32
    features_c: U32 = 0
    features_d: U32 = 0
    """``misc`` in Linux's line where group D is ECX/EDX dependent: x86 prints EDX, arm64 prints ECX."""
    recommendations: U32
    spin_retries: U32 = 0xFFF
    max_vps: U32
    max_lps: U32
    hardware: U32 = 0
    nested: U32 = 0
    nested_b: U32 = 0
    extended_capabilities: U64 = 0
    """Answer of HvExtCallQueryCapabilities."""

    @property
    def privileges(self) -> int:
        """The 64-bit HV_PARTITION_PRIVILEGE_MASK."""
        return self.privileges_high << 32 | self.privileges_low


class Vmbus(Model):
    """What the VMBus server accepts."""

    versions: tuple[Version, ...]
    """Protocol versions that INITIATE_CONTACT may ask for, ascending."""
    message_connection_4: bool
    """Whether messages may be posted to connection id 4. Hosts up to protocol 4.0 answer
    HV_STATUS_INVALID_CONNECTION_ID there (drivers/hv/connection.c: vmbus_post_msg)."""
    gpadl_total_mb: Annotated[int, Field(gt=0)]
    """Guest memory that all GPADLs of the guest together may hold, in MiB."""
    features: U32 = 0
    """Feature flags of version 6.0 that the host grants (OpenVMM: protocol.rs, FeatureFlags), as far as the server has
    them. *unspecified*: no profile has version 6.0, which Linux 6.1 does not ask for."""

    @model_validator(mode="after")
    def _ascending(self) -> Vmbus:
        if list(self.versions) != sorted(set(self.versions)) or not self.versions:
            raise ValueError("versions must be ascending and at least one")
        return self

    def capped(self, highest: int) -> Vmbus:
        """Return what a server accepts that knows no version above ``highest``.

        :raises ValueError: none is left.
        """
        versions = tuple(version for version in self.versions if version <= highest)
        if not versions:
            lowest = self.versions[0]
            raise ValueError(f"the lowest version of this host is {lowest >> 16}.{lowest & 0xFFFF}")
        kept = {"versions": versions, "message_connection_4": self.message_connection_4 and highest >= CONNECTION_4}
        return self.model_copy(update=kept)


class Throttle(Model):
    """How many unnecessary signals a host puts up with before it stops the guest for a while.

    A host may suspend a guest "for a few seconds" for sending an excessive number of unnecessary interrupts
    (Documentation/virt/hyperv/vmbus.rst). No source gives numbers: all three are *unspecified*.
    """

    budget: Annotated[int, Field(gt=0)] = 1000
    """Unnecessary signals within one interval, over all channels."""
    interval: Annotated[int, Field(gt=0)] = 10_000_000
    """Length of the interval, in 100 ns units."""
    pause: Annotated[int, Field(gt=0)] = 30_000_000
    """How long the guest stands still, in 100 ns units."""


class Storage(Model):
    """What a VM has behind its SCSI controllers besides its disks."""

    vps_per_channel: Annotated[int, Field(gt=0)] = 16
    """Processors per channel of a SCSI controller; the channels beyond the first are sub-channels. 16: a talk on
    Hyper-V storage of 2013 (TechEd MDC-B345), for Windows Server 2012 on; earlier hosts speak no version that has
    them."""
    dvd_lun: Annotated[int, Field(ge=0, lt=64)] | None = None
    """LUN of an empty DVD drive on the first SCSI controller; ``None`` without one. Azure's stands at 2 (logs 01, 06),
    behind the boot disk and the resource disk."""


class Acpi(Model):
    """What the firmware's tables say beyond the truth."""

    listed_gen1: Annotated[int, Field(ge=0, le=2048)] = 0
    """How many processors the MADT of generation 1 lists at least; those beyond the VM's are never enabled."""
    listed_gen2: Annotated[int, Field(ge=0, le=2048)] = 0
    """The same for generation 2."""
    bios_version: str = ""
    """SMBIOS type 0 version of generation 1."""
    bios_date: Annotated[str, Field(pattern=r"^(\d\d/\d\d/\d{4})?$")] = ""
    """``MM/DD/YYYY``. Generation 1 has one."""
    uefi_version: str = ""
    uefi_date: str = ""
    direct_boot: bool = False
    """Whether the host loads the kernel itself: no UEFI, no SMBIOS, tables right above 1 MiB."""


class MemoryMap(Model):
    """Where RAM ends below 4 GiB and where MMIO space lies, per profile. Inclusive ends."""

    low_ram_end: Annotated[int, Field(gt=0)]
    """First byte above the RAM below 4 GiB; more RAM starts at 4 GiB."""
    low_mmio: tuple[int, int]
    high_mmio: tuple[int, int]
    framebuffer: tuple[int, int]
    """Base and size of the firmware's frame buffer inside the low window; ``(0, 0)`` when there is none."""

    @model_validator(mode="after")
    def _order(self) -> MemoryMap:
        base, size = self.framebuffer
        if not (self.low_ram_end <= self.low_mmio[0] < self.low_mmio[1] < 1 << 32 <= self.high_mmio[0]):
            raise ValueError("RAM, the low window and the high window must follow each other around 4 GiB")
        if size and not self.low_mmio[0] <= base <= base + size - 1 <= self.low_mmio[1]:
            raise ValueError("the frame buffer must lie in the low window")
        return self


class DeviceClass(Model):
    """One class of VMBus device: its identity and the instances that Hyper-V always uses for it."""

    title: str
    aliases: tuple[str, ...] = ()
    """Other names by which a VM file may call the kind."""
    class_guid: uuid.UUID
    instances: tuple[uuid.UUID, ...] = ()
    """Well-known instance GUIDs, in order. Further ones are made up, the same on every run."""
    mmio_megabytes: Annotated[int, Field(ge=0, le=0xFFFF)] = 0
    pipe: bool = False
    source: str

    def instance(self, name: str, index: int) -> uuid.UUID:
        """Return the instance GUID number ``index`` of the class called ``name``."""
        if index < len(self.instances):
            return self.instances[index]
        return uuid.uuid5(NAMESPACE, f"{name}/{index}")


@dataclass(frozen=True, slots=True)
class Device:
    """One offer that the profile makes."""

    name: str
    """Key of the class in ``profiles/devices.toml`` and the number among its kind, as ``scsi0``."""
    kind: str
    """Key of the class."""
    class_guid: uuid.UUID
    instance_guid: uuid.UUID
    protocols: tuple[Version, ...] = ()
    """Protocol versions that the device accepts; empty where the class negotiates none or the plugin decides."""
    mmio_megabytes: int = 0
    pipe: bool = False
    flags: int | None = None
    """chn_flags of the offer; ``None`` for what the class has."""
    user_defined: bytes = b""
    monitored: bool = False
    monitor_latency: int = 0
    """In 100 ns units."""
    subchannels: int = 0
    offered_at: int = 0
    """Virtual time in 100 ns units before which it is not offered."""


class HostProfile(Model):
    """One host, as a guest can tell it from another."""

    name: str
    title: str
    architectures: tuple[str, ...]
    generations: tuple[Generation, ...]
    default_generation: Generation
    build: Build
    cpu: Cpu
    cpuid: Cpuid
    vmbus: Vmbus
    acpi: Acpi
    memory: MemoryMap
    throttle: Throttle = Throttle()
    storage: Storage = Storage()
    crash_message: bool = True
    """Whether the crash interface takes a page of text with the five numbers (bit 62 of CRASH_CTL)."""
    gen1: tuple[str, ...] = ()
    """Device kinds in the order of the offers on generation 1; a kind that stands twice has two instances."""
    gen2: tuple[str, ...] = ()
    protocols: Mapping[str, tuple[Version, ...]] = {}
    """Per device kind, the protocol versions that this host's device accepts."""
    sources: Mapping[str, str]
    """Where each part of the profile comes from; ``unspecified`` where nothing is published."""

    @model_validator(mode="after")
    def _consistent(self) -> HostProfile:
        if self.default_generation not in self.generations:
            raise ValueError("default_generation must be one of generations")
        for generation in (1, 2):
            if bool(self.kinds(generation)) != (generation in self.generations):
                raise ValueError(f"gen{generation} must list devices exactly if generation {generation} exists")
        if 1 in self.generations and not self.acpi.bios_date:
            raise ValueError("acpi: generation 1 has a bios_date")
        return self

    def listed_cpus(self, generation: int) -> int:
        """Return how many processors the MADT of a generation lists at least."""
        return self.acpi.listed_gen1 if generation == 1 else self.acpi.listed_gen2

    def kinds(self, generation: int) -> tuple[str, ...]:
        """Return the device kinds of a generation, in the order of the offers."""
        return self.gen1 if generation == 1 else self.gen2

    def devices(self, generation: int) -> tuple[Device, ...]:
        """Return the offers of a generation with their identities, in order.

        :raises KeyError: a kind that ``profiles/devices.toml`` does not know.
        """
        return self._offers[generation - 1]

    def capped(self, kind: str, highest: int) -> HostProfile:
        """Return the host whose devices of a kind know no protocol version above ``highest``.

        :raises ValueError: it has no versions of that kind, or none is left.
        """
        known = self.protocols.get(kind, ())
        if not known:
            raise ValueError(f"host {self.name} has no versions of this kind of device; it has of {self._versioned}")
        kept = tuple(version for version in known if version <= highest)
        if not kept:
            raise ValueError(f"the lowest version of this host is {known[0] >> 16}.{known[0] & 0xFFFF}")
        return self.model_copy(update={"protocols": {**self.protocols, kind: kept}})

    @property
    def _versioned(self) -> str:
        return ", ".join(self.protocols) or "none"

    @cached_property
    def _offers(self) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
        """The offers of both generations, put together once."""
        return self.made(self.gen1), self.made(self.gen2)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> HostProfile:
        """Return a copy, with other values for some fields; its offers follow from these."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("_offers", None)
        return copy

    def made(self, kinds: Iterable[str]) -> tuple[Device, ...]:
        """Return the offers of some kinds as this host makes them, in order; a kind may stand more than once.

        :raises KeyError: a kind that ``profiles/devices.toml`` does not know.
        """
        seen: dict[str, int] = {}
        out = []
        for kind in kinds:
            number = seen.get(kind, 0)
            seen[kind] = number + 1
            cls = DEVICE_CLASSES[kind]
            out.append(
                Device(
                    name=f"{kind}{number}",
                    kind=kind,
                    class_guid=cls.class_guid,
                    instance_guid=cls.instance(kind, number),
                    protocols=self.protocols.get(kind, ()),
                    mmio_megabytes=cls.mmio_megabytes,
                    pipe=cls.pipe,
                )
            )
        return tuple(out)

    def privilege(self, bit: int) -> bool:
        """Whether bit ``bit`` of HV_PARTITION_PRIVILEGE_MASK is granted."""
        return bool(self.cpuid.privileges >> bit & 1)


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("hvkernel.config") / "profiles" / f"{name}.toml").read_text("utf-8"))


DEVICE_CLASSES: Final[Mapping[str, DeviceClass]] = MappingProxyType(
    {kind: DeviceClass.model_validate(entry) for kind, entry in _data("devices").items()}
)
"""The catalogue of device classes, by kind."""


def profile_names() -> tuple[str, ...]:
    """Return the names of all host profiles, sorted."""
    files = (resources.files("hvkernel.config") / "profiles").iterdir()
    return tuple(sorted(f.name[:-5] for f in files if f.name.endswith(".toml") and f.name != "devices.toml"))


def load_profile(name: str, *, where: str = "host") -> HostProfile:
    """Return the host profile called ``name``.

    :param where: where the name was written, for the error (``--host``, or a VM file).
    :raises InputError: there is no such profile; the error lists those that exist.
    """
    names = profile_names()
    if name not in names:
        raise InputError(where, "host", name, f"must be one of {', '.join(names)}")
    try:
        return HostProfile.model_validate({"name": name, **_data(name)})
    except ValidationError as error:
        raise input_error(f"profiles/{name}.toml", error) from None
