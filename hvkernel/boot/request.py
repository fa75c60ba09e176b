"""What to boot: the command line, the VM file and the ``.config`` put together and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.boot.initrd import Initrd, read_initrd
from hvkernel.config.errors import InputError
from hvkernel.config.units import parse_size

if TYPE_CHECKING:
    from hvkernel.boot.sysfs import SysfsRequest
    from hvkernel.config.vm import VmConfig

__all__ = ["BootRequest", "read_request"]

COMMAND_LINE: Final = "command line"

ALL_MODULES: Final = Initrd()
"""An initramfs with every module that the config builds."""

_WORDS: Final = MappingProxyType({"i386": 32, "x86_64": 64})
"""Names of x86 that settle the word size (arch/x86/Kconfig: 64BIT is a choice only where ARCH is x86)."""

PAGE_SIZES: Final = (4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class BootRequest:
    """One boot, as asked for."""

    config: Path | str
    """Path of the ``.config``, or its text (with at least one line feed)."""
    vm: VmConfig
    config_name: str = "<config>"
    """What messages call a ``.config`` that was given as text."""
    where: str = COMMAND_LINE
    """Where the VM is described, for errors: the VM file, or the command line."""
    vm_file: str = ""
    """The VM file, where there is one: what the command line cannot say stands there."""
    arch: str | None = None
    release: str | None = None
    page_size: int | None = None
    """Guest page size in bytes; ``None`` as the ``.config`` says."""
    bits: int | None = None
    initrd: Initrd = ALL_MODULES
    jit: bool = False
    trace: tuple[Path, ...] = ()
    """Files that the run is recorded in; each suffix says the format (:mod:`hvkernel.trace.formats`)."""
    sysfs: SysfsRequest | None = None
    """Where the guest's sysfs is written."""


def read_request(
    *,
    config: Path | None = None,
    arch: str | None = None,
    release: str | None = None,
    page_size: str | None = None,
    bits: int | None = None,
    cpus: int | None = None,
    memory: str | None = None,
    host: str | None = None,
    vm: Path | None = None,
    initrd: str | None = None,
    disk: Path | None = None,
    seed: int | None = None,
    policy: str | None = None,
    jit: bool = False,
    trace: Sequence[Path] = (),
    sysfs: Path | None = None,
    sysfs_live: bool = False,
) -> BootRequest:
    """Put the options of ``hvkernel boot`` together; each is as written on the command line, ``None`` when absent.

    :raises InputError: an option or the VM file is wrong.
    """
    from hvkernel.config.vm import VmConfig, change_vm, load_vm

    given: dict[str, Any] = {"cpus": cpus, "memory": memory, "seed": seed, "policy": policy}
    if host is not None:
        given.update(_host(host))
    if disk is not None:
        given["disks"] = [str(disk)]
    described = load_vm(vm) if vm is not None else VmConfig()
    settled = change_vm(described, _only_given(given), where=COMMAND_LINE)
    return BootRequest(
        config=config if config is not None else default_config(arch),
        config_name="default configuration" if config is None else str(config),
        vm=settled,
        where=str(vm) if vm is not None and host is None and cpus is None and memory is None else COMMAND_LINE,
        vm_file=str(vm) if vm is not None else "",
        arch=arch,
        release=release,
        page_size=_page_size(page_size),
        bits=_bits(arch, bits),
        initrd=read_initrd(initrd),
        jit=jit,
        trace=_traces(trace),
        sysfs=_sysfs(sysfs, sysfs_live),
    )


def default_config(arch: str | None = None) -> str:
    """Return the fragment that is booted when no ``.config`` is given: everything of Hyper-V built in.

    :param arch: architecture as on the command line; ``None`` for the first of the modelled ones.
    :raises InputError: an architecture that is not modelled.
    """
    from hvkernel.kconfig.configfile import ARCHES

    if arch is not None and arch not in ARCHES:
        raise InputError("--arch", "architecture", arch, f"must be one of {', '.join(ARCHES)}")
    name = ARCHES[arch] if arch is not None else next(iter(ARCHES.values()))
    return resources.files("hvkernel.config").joinpath(f"hyperv-{name}.config").read_text("utf-8")


def _only_given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _host(text: str) -> dict[str, Any]:
    name, slash, generation = text.partition("/")
    if not slash:
        return {"host": name, "generation": None}
    if generation not in ("gen1", "gen2"):
        raise InputError("--host", "generation", generation, "must be gen1 or gen2, as in ws2022/gen1")
    return {"host": name, "generation": int(generation[3:])}


def _sysfs(path: Path | None, live: bool) -> SysfsRequest | None:
    """:raises InputError: nothing can be written there; see :func:`hvkernel.boot.sysfs.check_place`."""
    if path is None:
        if live:
            raise InputError("--sysfs-live", limit="needs --sysfs DIR")
        return None
    from hvkernel.boot.sysfs import SysfsRequest, check_place

    check_place(path)
    return SysfsRequest(path, live)


def _bits(arch: str | None, bits: int | None) -> int | None:
    word = _WORDS.get(arch) if arch is not None else None
    if None not in (word, bits) and word != bits:
        raise InputError("--bits", "word size", bits, f"--arch {arch} has {word} bits")
    return word if bits is None else bits


def _page_size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError:
        size = 0
    if size not in PAGE_SIZES:
        raise InputError("--page-size", "page size", text, "must be 4K, 16K or 64K")
    return size


def _traces(paths: Sequence[Path]) -> tuple[Path, ...]:
    if paths:
        from hvkernel.trace.formats import UnknownSuffix, format_of

        for number, path in enumerate(paths):
            try:
                format_of(path)
            except UnknownSuffix as error:
                raise InputError("--trace", "file", str(path), str(error)) from None
            if path in paths[:number]:
                raise InputError("--trace", "file", str(path), "is named twice")
    return tuple(paths)
