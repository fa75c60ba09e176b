"""The axes of a matrix: what each value of each of them asks for, and how a cell becomes a boot.

An :class:`Axis` changes a :class:`Plan`: it lays Kconfig lines over the base ``.config``, sets keys of the VM, or picks
the architecture, release, initramfs or events. A cell's values, applied in the order of :data:`AXES`, then the Kconfig
symbols, then the plugins' axes, make the plan; the plan makes a :class:`~hvkernel.boot.request.BootRequest`.

What an axis writes into the ``.config`` it also expects to come out; :mod:`hvkernel.matrix.legal` sees to it that no
cell is made in which it would not.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.matrix import Clash
from hvkernel.boot.initrd import Initrd
from hvkernel.boot.request import ALL_MODULES, BootRequest, default_config
from hvkernel.config.errors import InputError
from hvkernel.config.profile import load_profile, profile_names
from hvkernel.config.units import parse_size
from hvkernel.config.vm import MAX_CPUS, change_vm
from hvkernel.kconfig.data import RELEASES
from hvkernel.kconfig.overlay import lay_over
from hvkernel.matrix.model import EVENT_NAMES, Cell

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.config.matrix import MatrixSpec

__all__ = [
    "AXES",
    "OWN_CONFIG",
    "Axis",
    "Plan",
    "axes_of",
    "cell_from_text",
    "cell_text",
    "plan_of",
    "plugin_axes",
    "replay_command",
    "request_of",
    "symbol_axis",
]

OWN_CONFIG: Final = "default"
"""The value of axis ``config`` that stands for the fragment ``hvkernel boot`` takes when it is given none."""

_G: Final = 1 << 30


@dataclass(slots=True)
class Plan:
    """What one cell asks for."""

    seed: int = 0
    arch: str | None = None
    """``x86`` or ``arm64``; ``None`` as the ``.config`` says."""
    release: str | None = None
    config: str = OWN_CONFIG
    """Which ``.config``: a name of the spec's ``configs``, or :data:`OWN_CONFIG`."""
    lines: dict[str, str] = field(default_factory=dict)
    """Kconfig symbol to the value laid over the ``.config``."""
    expect: dict[str, str] = field(default_factory=dict)
    """Kconfig symbol to the value that it must have in the evaluated configuration."""
    vm: dict[str, Any] = field(default_factory=dict)
    """Keys of :class:`~hvkernel.config.vm.VmConfig`."""
    initrd: Initrd = ALL_MODULES
    events: tuple[str, ...] = ()
    """What happens to the guest once it is up, by name (:mod:`hvkernel.matrix.events`)."""

    def set_config(self, symbol: str, value: str, *, expect: bool = True) -> None:
        """Lay ``CONFIG_symbol=value`` over the ``.config``.

        :param expect: whether it must come out of the evaluation like that.
        """
        self.lines.pop(symbol, None)
        self.lines[symbol] = value
        self.expect.pop(symbol, None)
        if expect:
            self.expect[symbol] = value

    def set_vm(self, key: str, value: Any) -> None:
        """Set a key of the VM file."""
        self.vm[key] = value

    def set_protocol(self, kind: str, highest: str) -> None:
        """Keep the host's devices of a kind at a version of their protocol."""
        self.vm["protocols"] = {**self.vm.get("protocols", {}), kind: highest}

    def add_event(self, name: str) -> None:
        """Let an event of :mod:`hvkernel.matrix.events` happen, after those that were asked for before."""
        self.events = (*self.events, name)


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that a matrix varies.

    :ivar name: as a spec calls it.
    :ivar title: what it is, in a few words.
    :ivar values: the values that it knows; for an open axis examples.
    :ivar default: the value that is the same as not asking; what a failing cell is shrunk towards.
    :ivar apply: changes a plan; the Kconfig lines that it writes must not depend on what other axes did.
    :ivar check: of an open axis: what is wrong with a value, ``None`` if nothing is. Without it ``values`` is all.
    :ivar clashes: values of other axes that no cell has together with one of this.
    :ivar needs: values that take a capability of the kernel.
    """

    name: str
    title: str
    values: tuple[str, ...]
    default: str
    apply: Callable[[Plan, str], None]
    check: Callable[[str], str | None] | None = None
    clashes: tuple[Clash, ...] = ()
    needs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def problem(self, value: str) -> str | None:
        """Return what is wrong with a value, ``None`` if nothing is."""
        if self.check is not None:
            return self.check(value)
        if value in self.values:
            return None
        close = difflib.get_close_matches(value, self.values, 1)
        hint = f"did you mean {close[0]!r}? It " if close else ""
        return f"{hint}must be one of {', '.join(self.values)}"


def _arch(plan: Plan, value: str) -> None:
    plan.arch = value


def _release(plan: Plan, value: str) -> None:
    plan.release = value


def _config(plan: Plan, value: str) -> None:
    plan.config = value


def _bits(plan: Plan, value: str) -> None:
    plan.set_config("64BIT", "y" if value == "64" else "n")


def _pae(plan: Plan, value: str) -> None:
    """32-bit x86: HIGHMEM64G selects X86_PAE where it exists (until 6.14), from then on X86_PAE is asked for alone."""
    if value == "y":
        plan.set_config("HIGHMEM64G", "y", expect=False)
    else:
        plan.set_config("HIGHMEM4G", "y", expect=False)
    plan.set_config("X86_PAE", value)


def _page_size(plan: Plan, value: str) -> None:
    """4K is what is left without the others: x86 has no symbol for it, and one of arm64's would make it an arm64."""
    for size in ("16K", "64K"):
        plan.set_config(f"ARM64_{size}_PAGES", "y" if size == value else "n")


def _hz(plan: Plan, value: str) -> None:
    plan.set_config(f"HZ_{value}", "y")


def _nr_cpus(plan: Plan, value: str) -> None:
    plan.set_config("NR_CPUS", value, expect=False)


def _host(plan: Plan, value: str) -> None:
    name, _, generation = value.partition("/gen")
    plan.set_vm("host", name)
    plan.set_vm("generation", int(generation))


def _cpus(plan: Plan, value: str) -> None:
    plan.set_vm("cpus", int(value))


def _check_cpus(value: str) -> str | None:
    good = value.isdecimal() and value == str(int(value)) and 1 <= int(value) <= MAX_CPUS
    return None if good else f"must be a number from 1 to {MAX_CPUS}"


LAYOUTS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"small": (256 << 20, 1), "1G": (_G, 1), "above-4G": (6 * _G, 1), "numa": (2 * _G, 2)}
)
"""Memory layouts: bytes, and over how many nodes they and the processors are spread."""


def _memory(plan: Plan, value: str) -> None:
    size, nodes = LAYOUTS.get(value, (0, 1))
    plan.set_vm("memory", size or parse_size(value))
    plan.set_vm("numa", nodes)


def _check_memory(value: str) -> str | None:
    if value in LAYOUTS:
        return None
    try:
        parse_size(value)
    except ValueError:
        return f"must be a size, as 512M, or one of {', '.join(LAYOUTS)}"
    return None


def _vmbus(plan: Plan, value: str) -> None:
    if value != "host":
        plan.set_vm("vmbus", value)


DEVICE_SETS: Final = ("profile", "root", "two-scsi", "stranger", "late")
"""``profile``: what the host profile offers. ``root``: the root disk's controller alone. ``two-scsi``: one more SCSI
controller. ``stranger``: one more offer, of a class that no driver knows. ``late``: one more SCSI controller, which
is offered two seconds after the others."""


def _devices(plan: Plan, value: str) -> None:
    if value == "root":
        plan.set_vm("devices", ("ide",) if plan.vm.get("generation") == 1 else ("scsi",))
    elif value == "two-scsi":
        plan.set_vm("device", ({"kind": "scsi"},))
    elif value == "stranger":
        plan.set_vm("device", ({"class_guid": STRANGER},))
    elif value == "late":
        plan.set_vm("device", ({"kind": "scsi", "offered_at": 2.0},))


STRANGER: Final = "c0ffee00-0000-4000-8000-000000000001"
"""A class GUID of nobody's."""


def _offer_order(plan: Plan, value: str) -> None:
    plan.set_vm("offer_order", value)


def _policy(plan: Plan, value: str) -> None:
    plan.set_vm("policy", f"random:{plan.seed}" if value == "random" else value)


def _check_policy(value: str) -> str | None:
    known = value in ("fifo", "random") or (value.startswith("random:") and value[7:].isdecimal())
    return None if known else "must be fifo, random (drawn from the cell's seed) or random:SEED"


def _initrd(plan: Plan, value: str) -> None:
    plan.initrd = ALL_MODULES if value == "all" else Initrd((), exists=False)


NO_EVENT: Final = "none"
"""The value of axis ``events`` that asks for none."""


def _events(plan: Plan, value: str) -> None:
    if value == "hibernate":
        plan.set_config("SWAP", "y", expect=False)
        plan.set_config("HIBERNATION", "y")
    if value != NO_EVENT:
        plan.add_event(value)


_own_config = lru_cache(maxsize=4)(default_config)


@lru_cache(maxsize=1)
def host_values() -> tuple[str, ...]:
    """Return every host profile with each of its generations, as ``ws2022/gen1``."""
    names = profile_names()
    return tuple(f"{name}/gen{number}" for name in names for number in load_profile(name).generations)


@lru_cache(maxsize=1)
def vmbus_values() -> tuple[str, ...]:
    """Return ``host`` and every VMBus version that a profile knows, ascending."""
    versions = {version for name in profile_names() for version in load_profile(name).vmbus.versions}
    return ("host", *(f"{version >> 16}.{version & 0xFFFF}" for version in sorted(versions)))


@lru_cache(maxsize=1)
def built_in_axes() -> Mapping[str, Axis]:
    """Return the axes of :data:`AXES` by name, in the order in which they are applied."""
    axes = (
        Axis("arch", "architecture", ("x86", "arm64"), "x86", _arch),
        Axis("release", "kernel release", RELEASES, "6.1", _release),
        Axis("config", "the .config underneath", (OWN_CONFIG,), OWN_CONFIG, _config),
        Axis("bits", "word size", ("64", "32"), "64", _bits),
        Axis("pae", "PAE of a 32-bit x86 kernel", ("n", "y"), "n", _pae),
        Axis("page_size", "PAGE_SIZE", ("4K", "16K", "64K"), "4K", _page_size),
        Axis("hz", "CONFIG_HZ", ("250", "100", "300", "1000"), "250", _hz),
        Axis("nr_cpus", "CONFIG_NR_CPUS", ("64", "512"), "64", _nr_cpus, _check_cpus),
        Axis("host", "host profile and generation", host_values(), "azure-gen2/gen2", _host),
        Axis("cpus", "virtual processors", ("4", "1", "2", "64", "65", "240"), "4", _cpus, _check_cpus),
        Axis("memory", "memory and its layout", ("1G", "small", "above-4G", "numa"), "1G", _memory, _check_memory),
        Axis("vmbus", "highest VMBus version of the host", vmbus_values(), "host", _vmbus),
        Axis("devices", "device set", DEVICE_SETS, "profile", _devices),
        Axis("offer_order", "order of the offers", ("profile", "random"), "profile", _offer_order),
        Axis("policy", "scheduling policy", ("fifo", "random"), "fifo", _policy, _check_policy),
        Axis("initrd", "initramfs", ("all", "none"), "all", _initrd),
        Axis("events", "what happens to the guest that is up", (NO_EVENT, *EVENT_NAMES), NO_EVENT, _events),
        Axis(
            "then",
            "what happens after that",
            (NO_EVENT, *EVENT_NAMES),
            NO_EVENT,
            _events,
            clashes=tuple(Clash(event, "events", (NO_EVENT,), "nothing has happened before") for event in EVENT_NAMES),
        ),
    )
    return MappingProxyType({axis.name: axis for axis in axes})


AXES: Final = (
    "arch",
    "release",
    "config",
    "bits",
    "pae",
    "page_size",
    "hz",
    "nr_cpus",
    "host",
    "cpus",
    "memory",
    "vmbus",
    "devices",
    "offer_order",
    "policy",
    "initrd",
    "events",
    "then",
)
"""Names of the built-in axes, in the order in which they are applied."""


def symbol_axis(name: str, values: Sequence[str] = ("y", "m", "n")) -> Axis:
    """Return the axis of a Kconfig symbol; its default is the first of ``values``."""

    def apply(plan: Plan, value: str) -> None:
        plan.set_config(name, value)

    return Axis(name, f"CONFIG_{name}", ("y", "m", "n"), values[0], apply)


def plugin_axes(plugins: Plugins) -> tuple[Axis, ...]:
    """Return the axes that plugins bring (hook ``hv_matrix_axes``).

    :raises InputError: one has the name of another, or of one of ours, or no value.
    """
    taken = set(AXES)
    found = []
    for info, brought in plugins.call("hv_matrix_axes"):
        for one in brought:
            if one.name in taken or not one.values:
                what = "there is one of that name already" if one.name in taken else "it has no value"
                raise InputError("plugins", "axis", one.name, f"{info.name}: {what}")
            taken.add(one.name)
            own = Axis(one.name, one.about, one.values, one.values[0], one.apply, clashes=one.clashes, needs=one.needs)
            found.append(own)
    return tuple(found)


def axes_of(spec: MatrixSpec, extra: Sequence[Axis] = ()) -> Mapping[str, Axis]:
    """Return the axes that a spec varies, in the order in which they are applied.

    :param extra: axes of plugins.
    :raises InputError: the spec names an axis or a value that there is not.
    """
    known = {**built_in_axes(), **{axis.name: axis for axis in extra}}
    if spec.configs:
        row = known["config"]
        known["config"] = Axis(row.name, row.title, (*row.values, *spec.configs), row.default, row.apply)
    for name, values in spec.axes.items():
        axis = known.get(name)
        if axis is None:
            raise InputError(spec.source, f"axes.{name}", limit=_unknown(name, tuple(known)))
        for value in values:
            problem = axis.problem(value)
            if problem is not None:
                raise InputError(spec.source, f"axes.{name}", value, problem)
    first = {name: axis for name, axis in known.items() if name in spec.axes and name in AXES}
    symbols = {name: symbol_axis(name, values) for name, values in spec.symbols.items()}
    last = {name: axis for name, axis in known.items() if name in spec.axes and name not in AXES}
    found = {**first, **symbols, **last}
    for number, rule in enumerate(spec.rule):
        for part, wanted in (("when", rule.when), ("then", rule.then or {})):
            for name, values in wanted.items():
                where = f"rule[{number}].{part}.{name}"
                if name not in found:
                    raise InputError(spec.source, where, limit=f"is no axis of this spec: {_unknown(name, (*found,))}")
                for value in values:
                    if value not in spec.varied[name]:
                        limit = f"is no value of this spec's {name}: {', '.join(spec.varied[name])}"
                        raise InputError(spec.source, where, value, limit)
    return found


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}? The axes are " if close else "the axes are "
    return f"{hint}{', '.join(known)}"


def plan_of(spec: MatrixSpec, axes: Mapping[str, Axis], cell: Cell) -> Plan:
    """Return what a cell asks for.

    :param axes: of :func:`axes_of`.
    """
    plan = Plan(seed=cell.seed)
    for symbol, value in spec.config.items():
        plan.set_config(symbol, value, expect=False)
    values = cell.by_axis
    for name, axis in axes.items():
        if name in values:
            axis.apply(plan, values[name])
    return plan


def request_of(spec: MatrixSpec, axes: Mapping[str, Axis], cell: Cell) -> tuple[Plan, BootRequest]:
    """Return a cell's plan and the boot that it asks for.

    :raises InputError: the values contradict one another.
    """
    plan = plan_of(spec, axes, cell)
    where = f"cell {cell.number}"
    given = {**plan.vm, "seed": cell.seed}
    if isinstance(given.get("numa"), int):
        given["numa"] = _nodes(given, spec)
    if "device" in given:
        given["device"] = (*(one.model_dump(exclude_unset=True) for one in spec.vm.device), *given["device"])
    if "protocols" in given:
        given["protocols"] = {**spec.vm.protocols, **given["protocols"]}
    vm = change_vm(spec.vm, given, where=where)
    row = spec.configs.get(plan.config)
    text = row.text if row is not None else _own_config(plan.arch)
    request = BootRequest(
        config=lay_over(text, plan.lines),
        vm=vm,
        config_name=row.file if row is not None else "default configuration",
        where=where,
        arch=plan.arch,
        release=plan.release,
        initrd=plan.initrd,
    )
    return plan, request


def _nodes(given: Mapping[str, Any], spec: MatrixSpec) -> tuple[dict[str, int], ...]:
    """Spread the processors and the memory over so many nodes; the first has what cannot be spread evenly."""
    count = given["numa"]
    if count == 1:
        return ()
    cpus = given.get("cpus", spec.vm.cpus)
    memory = given["memory"]
    share, size = cpus // count, memory // count
    rest = {"cpus": cpus - share * (count - 1), "memory": memory - size * (count - 1)}
    return (rest, *({"cpus": share, "memory": size} for _ in range(count - 1)))


def cell_text(cell: Cell) -> str:
    """Return a cell's values as the command line takes them: ``arch=arm64,page_size=64K``."""
    return ",".join(f"{axis}={value}" for axis, value in cell.values)


def cell_from_text(spec: MatrixSpec, axes: Mapping[str, Axis], text: str, seed: int) -> Cell:
    """Return the cell of ``AXIS=VALUE,AXIS=VALUE``; axes that are not named stand at their defaults.

    :raises InputError: an axis or value that there is not, or an axis named twice.
    """
    given: dict[str, str] = {}
    for part in text.split(",") if text.strip() else ():
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise InputError("--cell", "axis", part.strip(), "must be AXIS=VALUE, several with commas between them")
        axis = axes.get(name)
        if axis is None:
            raise InputError("--cell", "axis", name, _unknown(name, tuple(axes)))
        problem = axis.problem(value)
        if problem is not None:
            raise InputError("--cell", name, value, problem)
        if name in given:
            raise InputError("--cell", name, value, f"is {given[name]!r} already")
        given[name] = value
    return Cell(0, tuple((name, given[name]) for name in spec.varied if name in given), seed)


def replay_command(spec: MatrixSpec, cell: Cell) -> str:
    """Return the command that runs one cell again."""
    own = "" if spec.source in ("default.toml", "<spec>") else f" {shlex.quote(spec.source)}"
    return f"hvkernel matrix --cell '{cell_text(cell)}' --seed {cell.seed}{own}"
