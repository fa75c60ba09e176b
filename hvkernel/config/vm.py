"""The VM file: one virtual machine, as a user describes it in TOML.

.. code-block:: toml

   host = "ws2022"
   generation = 1
   cpus = 8
   memory = "2G"
   disks = ["disk.img"]
   devices = ["heartbeat", "ide", "scsi"]

   [[numa]]
   cpus = 4
   memory = "1G"

   [[numa]]
   cpus = 4
   memory = "1G"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from hvkernel.config.devices import MAX_DEVICES, VmDevice, device_kinds
from hvkernel.config.files import read_toml
from hvkernel.config.profile import Generation, Model, Version
from hvkernel.config.render import input_error
from hvkernel.config.units import format_size, parse_size

__all__ = ["MAX_CPUS", "MIN_MEMORY", "Disk", "Medium", "NumaNode", "VmConfig", "change_vm", "load_vm"]

MAX_CPUS: Final = 2048
"""Most virtual processors of one VM (Windows Server 2025's published limit); a profile may have fewer."""

MIN_MEMORY: Final = 64 << 20
"""Least memory of one VM in bytes. *unspecified*: Hyper-V allows 32 MiB, in which no current kernel boots."""

MAX_MEMORY: Final = 64 << 40

MIN_BLANK: Final = 2 << 20
"""Least size of a blank disk in bytes: its partition tables and the alignment of its partition."""

MAX_BLANK: Final = 64 << 40
"""Largest disk, in bytes: that of a VHDX file."""

DVD_BLOCK: Final = 2048
MAX_DVD: Final = DVD_BLOCK << 32
"""Largest medium, in bytes: what READ CAPACITY (10) can say."""

Size = Annotated[int, BeforeValidator(parse_size)]


def _by_kind(value: Mapping[str, int]) -> Mapping[str, int]:
    """Call the kinds as the catalogue does. :raises ValueError: one that it does not have, or one twice."""
    kinds = device_kinds(tuple(value))
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        raise ValueError(f"has {twice!r} twice")
    return dict(zip(kinds, value.values(), strict=True))


class Disk(Model):
    """One disk of the VM, backed by a raw image."""

    path: str = ""
    """Path of the raw image; empty for a blank disk."""
    size: Size | None = None
    """Size of a blank disk in bytes; an image has its own."""
    read_only: Annotated[bool, Field(strict=True)] = False
    controller: Literal["ide", "scsi"] | None = None
    """Where it is attached; ``None`` for the generation's own way."""

    @field_validator("size", mode="after")
    @classmethod
    def _room_for_tables(cls, value: int | None) -> int | None:
        if value is not None and (value % 512 or value < MIN_BLANK or value > MAX_BLANK):
            raise ValueError(f"must be a multiple of 512 from {format_size(MIN_BLANK)} to {format_size(MAX_BLANK)}")
        return value

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.path and self.size is not None:
            raise ValueError(f"size is that of a blank disk; {self.path} has its own")
        return self


class Medium(Model):
    """A DVD: a raw image, of which whole blocks of 2048 bytes can be read, or a blank one."""

    path: str = ""
    """Path of the image, which is only read."""
    size: Size | None = None
    """Size of a blank one in bytes; an image has its own."""

    @field_validator("size", mode="after")
    @classmethod
    def _whole_blocks(cls, value: int | None) -> int | None:
        if value is not None and (value % DVD_BLOCK or value < MIN_BLANK or value > MAX_DVD):
            raise ValueError(
                f"must be a multiple of {DVD_BLOCK} from {format_size(MIN_BLANK)} to {format_size(MAX_DVD)}"
            )
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.path) == (self.size is not None):
            raise ValueError("a medium has the path of an image, or the size of a blank one")
        return self


class NumaNode(Model):
    """One virtual NUMA node."""

    cpus: Annotated[int, Field(ge=1, strict=True)]
    memory: Size


class VmConfig(Model):
    """A virtual machine. What is ``None`` follows from the kernel's configuration or the host profile."""

    host: str | None = None
    generation: Generation | None = None
    cpus: Annotated[int, Field(ge=1, le=MAX_CPUS, strict=True)] = 4
    memory: Annotated[Size, Field(ge=MIN_MEMORY, le=MAX_MEMORY)] = 1 << 30
    page_size: Literal[4096, 16384, 65536] | None = None
    """Page size the kernel must have been built for, in bytes; a check, not a choice."""
    disks: tuple[Disk, ...] | None = None
    """``None`` gives the blank disk; an empty list a VM without disks."""
    devices: Annotated[tuple[str, ...], Field(max_length=MAX_DEVICES), AfterValidator(device_kinds)] | None = None
    """Kinds of devices in the order of the offers, a kind as often as it has instances; ``None`` for the profile's."""
    device: tuple[VmDevice, ...] = ()
    """Further devices, described in full, after those."""
    offer_order: Literal["profile", "random"] = "profile"
    """Order of the offers: as listed, or drawn from the seed."""
    numa: tuple[NumaNode, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=1 << 64, strict=True)] = 0
    policy: str = "fifo"
    """Scheduling policy: ``fifo`` or ``random:SEED``."""
    isolation: Literal["none"] = "none"
    vmbus: Version | None = None
    """Highest protocol version that the VMBus server accepts, ``major << 16 | minor``, written ``"4.0"``: the host
    acts as an older one would. ``None``: all of the profile's."""
    protocols: Annotated[Mapping[str, Version], AfterValidator(_by_kind)] = Field(default_factory=dict)
    """By kind of device the highest version of its protocol that the host's side of it accepts, as ``scsi = "5.1"``;
    the others accept all of the profile's."""
    dvd: Medium | None = None
    """What is in the DVD drive that the host profile has; ``None``: nothing."""

    @field_validator("memory", mode="after")
    @classmethod
    def _whole_megabytes(cls, value: int) -> int:
        if value % (2 << 20):
            raise ValueError("memory must be a multiple of 2M")
        return value

    @field_validator("policy", mode="after")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        if re.fullmatch(r"fifo|random:[0-9]+", value) is None:
            raise ValueError("must be fifo or random:SEED")
        return value

    @field_validator("page_size", mode="before")
    @classmethod
    def _page_size(cls, value: Any) -> Any:
        return parse_size(value) if isinstance(value, str) else value

    @field_validator("dvd", mode="before")
    @classmethod
    def _plain_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("disks", mode="before")
    @classmethod
    def _plain_paths(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple({"path": disk} if isinstance(disk, str) else disk for disk in value)
        return value

    @model_validator(mode="after")
    def _nodes_add_up(self) -> Self:
        if not self.numa:
            return self
        for node in self.numa:
            if node.memory % (2 << 20) or node.memory <= 0:
                raise ValueError("numa: the memory of a node must be a multiple of 2M, above zero")
        if sum(node.cpus for node in self.numa) != self.cpus:
            raise ValueError(f"numa: the nodes' cpus must add up to cpus ({self.cpus})")
        if sum(node.memory for node in self.numa) != self.memory:
            raise ValueError(f"numa: the nodes' memory must add up to memory ({format_size(self.memory)})")
        return self


def load_vm(path: str | Path) -> VmConfig:
    """Read a VM file.

    :raises InputError: the file cannot be read, is not TOML, has an unknown key, or a value is out of its limits.
    """
    data = read_toml(path)
    try:
        return VmConfig.model_validate(data)
    except ValidationError as error:
        raise input_error(str(path), error) from None


def change_vm(vm: VmConfig, changes: Mapping[str, Any], *, where: str) -> VmConfig:
    """Return ``vm`` with some keys replaced, checked again as a whole.

    :param where: where the changes were written, for the error.
    :raises InputError: a changed value is out of its limits, or does not fit the rest.
    """
    if not changes:
        return vm
    try:
        return VmConfig.model_validate({**vm.model_dump(exclude_unset=True), **changes})
    except ValidationError as error:
        raise input_error(where, error) from None
