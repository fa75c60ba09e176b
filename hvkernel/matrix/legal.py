"""Which cells there are: what the Kconfig lets a kernel be, what a VM can be, and what the spec itself rules out.

Every constraint is a truth function of the axes (:mod:`hvkernel.kconfig.diagram`). The Kconfig's come from the tree's
own expressions (:mod:`hvkernel.kconfig.symbolic`): where an axis lays ``CONFIG_X=v`` over the ``.config``, X must come
out as v. The VM's are those of :mod:`hvkernel.boot.fit` and of the axes' meaning. A cell that breaks one is never made,
so a matrix never tells of a combination that nobody can have.

A spec whose constraints leave no cell, or leave a value of an axis without any, is refused before the first cell; the
message names the constraints that contradict one another, as few as it takes.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.boot.request import BootRequest, default_config
from hvkernel.boot.session import configure
from hvkernel.config.errors import InputError
from hvkernel.config.vm import MIN_MEMORY
from hvkernel.hv.connection import PRE_WIN8_VERSIONS, VMBUS_VERSIONS
from hvkernel.kconfig import Build, ConfigError
from hvkernel.kconfig.diagram import FALSE, TRUE, Diagrams
from hvkernel.kconfig.overlay import lay_over
from hvkernel.kconfig.symbolic import Symbolic
from hvkernel.matrix.axes import Axis, Plan

if TYPE_CHECKING:
    from hvkernel.api.hooks import ArchPlugin
    from hvkernel.boot.plugins import Plugins
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.config.profile import HostProfile

__all__ = ["Constraint", "Legal", "legal"]

_CONTEXT: Final = ("arch", "release", "config")
"""Axes that pick the Kconfig tree and the ``.config``; each combination of theirs is evaluated by itself."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One reason for which some combinations are no cells.

    :ivar text: what it says.
    :ivar node: the combinations that it allows.
    :ivar axes: those that it speaks of, also where the spec leaves them no choice.
    """

    text: str
    node: int
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Legal:
    """The cells that there are.

    :ivar diagrams: over the axes, in the order in which they are applied.
    :ivar constraints: what rules combinations out; those that rule out none are left away.
    """

    diagrams: Diagrams
    constraints: tuple[Constraint, ...]

    @cached_property
    def node(self) -> int:
        """All constraints at once."""
        return self.diagrams.all([one.node for one in self.constraints])

    @property
    def count(self) -> int:
        """How many cells there are, seeds not counted."""
        return self.diagrams.count(self.node)

    def allows(self, values: Mapping[str, str]) -> bool:
        """Whether some cell has these values; axes may be left out."""
        return self.diagrams.possible(self.node, self.diagrams.places(values))

    def declared(self) -> list[dict[str, Any]]:
        """Return the constraints as covertable takes them."""
        return [_declared(self.diagrams, one.node) for one in self.constraints]


def _declared(d: Diagrams, node: int) -> dict[str, Any]:
    """Return a truth function as a condition of covertable: cases over its first variable."""
    name, groups = d.branches(node)
    cases: list[dict[str, Any]] = []
    for values, child in groups:
        if child == FALSE:
            continue
        case: dict[str, Any] = {"operator": "in", "left": name, "values": list(values)}
        if child != TRUE:
            case = {"operator": "and", "conditions": [case, _declared(d, child)]}
        cases.append(case)
    return cases[0] if len(cases) == 1 else {"operator": "or", "conditions": cases}


def legal(spec: MatrixSpec, axes: Mapping[str, Axis], plugins: Plugins) -> Legal:
    """Return the cells of a spec.

    :param axes: of :func:`hvkernel.matrix.axes.axes_of`.
    :raises InputError: there are none, or none with some value that the spec names, or ``[vm]`` says what an axis says.
    :raises ConfigError: a ``.config`` of the spec is wrong.
    """
    made = _Maker(spec, axes, plugins)
    made.check_vm()
    constraints = [one for one in made.constraints() if one.node != TRUE]
    found = Legal(made.d, tuple(constraints))
    _check(spec, found, made)
    return found


class _Maker:
    def __init__(self, spec: MatrixSpec, axes: Mapping[str, Axis], plugins: Plugins) -> None:
        self._spec = spec
        self._axes = axes
        self._plugins = plugins
        varied = spec.varied
        self.d = Diagrams({name: varied[name] for name in axes})
        self._asks = {name: {value: _asked(axis, value) for value in varied[name]} for name, axis in axes.items()}
        self._archs: dict[str, ArchPlugin] = {arch.name: arch for _, arch in plugins.call("hv_arch")}

    def check_vm(self) -> None:
        """:raises InputError: a key of ``[vm]`` that no cell would have, because an axis sets it in all of them."""
        for name, asks in self._asks.items():
            for key in self._spec.vm.model_fields_set - {"device", "protocols"}:
                if all(key in plan.vm for plan in asks.values()):
                    raise InputError(self._spec.source, f"vm.{key}", limit=f"is what axis {name} says in every cell")

    def constraints(self) -> Iterator[Constraint]:
        context = tuple(name for name in self._axes if name in _CONTEXT)
        kconfig: dict[str, list[int]] = {}
        machine: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        known: set[str] = set()
        for values, where in self._contexts():
            try:
                build = self._build(values)
            except ConfigError as error:
                if self._spec.configs and values.get("config") in self._spec.configs and "arch" in values:
                    text = f"a .config has one architecture: {error}"
                    yield Constraint(text, self.d.opposite(where), ("arch", "config"))
                    continue
                raise
            known |= set(build.modelled)
            symbols = Symbolic(build, self.d, self._given())
            for name, node in self._kconfig(symbols):
                kconfig.setdefault(name, []).append(self.d.implies(where, node))
            for text, speaks_of, node in self._vm(symbols, build):
                machine.setdefault((text, speaks_of), []).append(self.d.implies(where, node))
        self._check_config(known)
        for name, nodes in kconfig.items():
            node = self.d.all(nodes)
            yield Constraint(f"Kconfig's rules for {name}", node, (*context, *self.d.support(node)))
        for (text, speaks_of), nodes in machine.items():
            yield Constraint(text, self.d.all(nodes), speaks_of)
        yield from self._layouts()
        yield from self._rules()

    def _check_config(self, known: Collection[str]) -> None:
        """:raises InputError: a symbol of ``[config]`` that means nothing in any cell."""
        for symbol, value in self._spec.config.items():
            if symbol not in known:
                close = difflib.get_close_matches(symbol, known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                limit = f"no release or architecture of this spec has a modelled symbol of that name{hint}"
                raise InputError(self._spec.source, f"config.{symbol}", value, limit)

    # Kconfig ---------------------------------------------------------------------------------------------------

    def _contexts(self) -> Iterator[tuple[dict[str, str], int]]:
        names = [name for name in self._axes if name in _CONTEXT]
        for values in itertools.product(*(self._spec.varied[name] for name in names)):
            nodes = [self.d.one_of(name, (value,)) for name, value in zip(names, values, strict=True)]
            yield dict(zip(names, values, strict=True)), self.d.all(nodes)

    def _build(self, values: Mapping[str, str], lines: Mapping[str, str] = MappingProxyType({})) -> Build:
        """Evaluate what stands under every cell of one context, with ``lines`` laid over it."""
        plan = Plan()
        for name, value in values.items():
            self._axes[name].apply(plan, value)
        row = self._spec.configs.get(plan.config)
        text = row.text if row is not None else default_config(plan.arch)
        request = BootRequest(
            config=lay_over(text, {**self._spec.config, **lines}),
            vm=self._spec.vm,
            config_name=row.file if row is not None else "default configuration",
            arch=plan.arch,
            release=plan.release,
        )
        return configure(request, self._plugins)

    def _given(self) -> dict[str, list[tuple[str, int]]]:
        """What the axes lay over the ``.config``; where two lay the same symbol, the later axis wins."""
        given: dict[str, list[tuple[str, int]]] = {}
        for name, asks in self._asks.items():
            lines: dict[str, list[tuple[str, int]]] = {}
            for value, plan in asks.items():
                for symbol, line in plan.lines.items():
                    lines.setdefault(symbol, []).append((line, self.d.one_of(name, (value,))))
            for symbol, written in lines.items():
                over = self.d.opposite(self.d.any([where for _, where in written]))
                earlier = [(line, self.d.both(where, over)) for line, where in given.pop(symbol, ())]
                given[symbol] = [*earlier, *written]
        return given

    def _kconfig(self, symbols: Symbolic) -> Iterator[tuple[str, int]]:
        """Where what each axis asks for comes out; where two lay one symbol it is the later that counts."""
        d = self.d
        found: dict[str, int] = {}
        laid: dict[str, int] = {}  # by symbol the cells in which a later axis lays it
        for name, asks in reversed(self._asks.items()):
            nodes = []
            for value, plan in asks.items():
                wanted = [d.either(laid.get(s, FALSE), symbols.equals(s, v)) for s, v in plan.expect.items()]
                nodes.append(d.implies(d.one_of(name, (value,)), d.all(wanted)))
            found[name] = d.all(nodes)
            for value, plan in asks.items():
                for symbol in plan.lines:
                    laid[symbol] = d.either(laid.get(symbol, FALSE), d.one_of(name, (value,)))
        yield from reversed(found.items())

    def why(self, name: str, value: str) -> str:
        """Return why a value does not come out where the other axes ask for nothing; empty where it does."""
        plan = self._asks[name][value]
        for values, _ in self._contexts():
            try:
                build = self._build(values, plan.lines)
            except ConfigError as error:
                return f" ({error})"
            for symbol, wanted in plan.expect.items():
                got = build.value(symbol)
                if wanted == "m" and got == "y" and not build.y("MODULES"):
                    return f" ({symbol}=y: there are no modules with MODULES={build.value('MODULES')})"
                if got != wanted or (wanted != "n" and symbol not in build.modelled):
                    return f" ({'; '.join(build.explain(symbol).lines())})"
        return ""

    # the VM ----------------------------------------------------------------------------------------------------

    def _vm(self, symbols: Symbolic, build: Build) -> Iterator[tuple[str, tuple[str, ...], int]]:
        """What :func:`hvkernel.boot.fit.settle_host` and :func:`~hvkernel.boot.fit.unfit` let run."""
        d = self.d
        for profile, generation, where in self._hosts(symbols, build):
            one = f"{profile.name}/gen{generation}"

            def only(node: int, where: int = where) -> int:
                return d.implies(where, node)

            arch = self._archs[build.arch]
            runs = int(build.arch in profile.architectures)
            yield "a host runs kernels of its own architecture", ("arch", "host"), only(runs)
            is64 = symbols.equals("64BIT", "y")
            words = d.either(
                d.both(is64, int(64 in arch.bits)), d.both(d.opposite(is64), int(32 in arch.bits and generation == 1))
            )
            yield "generation 2 starts 64-bit kernels only", ("bits", "host"), only(words)
            if generation == 2 and not profile.acpi.direct_boot:
                yield "generation 2 has UEFI only: EFI=y", ("EFI", "host"), only(symbols.equals("EFI", "y"))
            if generation == 1:
                emulated = d.both(d.opposite(symbols.enabled("HYPERV_STORAGE")), symbols.enabled("ATA_PIIX"))
                text = "a boot from emulated IDE is not modelled"
                yield text, ("HYPERV_STORAGE", "ATA_PIIX", "host"), only(d.opposite(emulated))
            cpus = self._vm_values("cpus", self._spec.vm.cpus)
            fit = d.any([node for count, node in cpus if count <= profile.cpuid.max_vps])
            yield f"{one} has at most {profile.cpuid.max_vps} processors", ("cpus", "host"), only(fit)
            yield (
                "a host has its own versions of VMBus, and the kernel speaks one of them",
                ("release", "host", "vmbus"),
                only(self._vmbus(profile, build)),
            )
            for text, speaks_of, node in self._devices(profile, generation):
                yield text, speaks_of, only(node)
        release = self._plugins.workshop.release(build.release)
        for name, axis in self._axes.items():
            lacking = [value for value, capability in axis.needs.items() if not release.has(capability)]
            here = [value for value in lacking if value in self._spec.varied[name]]
            text = (
                f"{name}={'|'.join(axis.needs)} needs a kernel with {' or '.join(dict.fromkeys(axis.needs.values()))}"
            )
            yield text, (name, "release"), d.opposite(d.one_of(name, here))

    def _hosts(self, symbols: Symbolic, build: Build) -> Iterator[tuple[HostProfile, int, int]]:
        """Every host with the cells that run on it: as axis ``host`` says, else the architecture's own choice."""
        load = self._plugins.workshop.profile
        if "host" in self._axes:
            for value in self._spec.varied["host"]:
                name, _, generation = value.partition("/gen")
                yield load(name, self._spec.source), int(generation), self.d.one_of("host", (value,))
            return
        left = TRUE
        for row in self._archs[build.arch].default_hosts:
            here = self.d.all([left, *(symbols.equals(need, "y") for need in row.needs)])
            left = self.d.both(left, self.d.opposite(here))
            yield load(row.profile, self._spec.source), row.generation, here

    def _vm_values(self, key: str, default: Any, part: str | None = None) -> list[tuple[Any, int]]:
        """What a key of the VM may be, and in which cells; ``default`` where no axis sets it.

        :param part: key of a table that is the value.
        """
        found: list[tuple[Any, int]] = []
        left = TRUE
        for name in reversed(self._asks):
            table = {
                value: plan.vm if part is None else plan.vm.get(key, {}) for value, plan in self._asks[name].items()
            }
            sets = {value: one[part or key] for value, one in table.items() if (part or key) in one}
            found += [(said, self.d.both(left, self.d.one_of(name, (value,)))) for value, said in sets.items()]
            left = self.d.both(left, self.d.opposite(self.d.one_of(name, tuple(sets))))
        found.append((default, left))
        return found

    def _devices(self, profile: HostProfile, generation: int) -> Iterator[tuple[str, tuple[str, ...], int]]:
        """What the axes ask of a host's devices, and where it has that."""
        d = self.d
        kinds = dict.fromkeys(
            kind for asks in self._asks.values() for plan in asks.values() for kind in plan.vm.get("protocols", ())
        )
        for kind in kinds:
            values = self._vm_values("protocols", self._spec.vm.protocols.get(kind), kind)
            has = [where for cap, where in values if _version(cap) in (None, *profile.protocols.get(kind, ()))]
            names = tuple(
                name
                for name, asks in self._asks.items()
                if any(kind in plan.vm.get("protocols", ()) for plan in asks.values())
            )
            yield f"a host has its own versions of the protocol of {kind}", ("host", *names), d.any(has)
        if generation != 2 or profile.storage.dvd_lun is None:
            empty = [where for medium, where in self._vm_values("dvd", self._spec.vm.dvd) if medium is None]
            names = tuple(name for name, asks in self._asks.items() if any("dvd" in p.vm for p in asks.values()))
            yield "a medium needs a host that has a DVD drive", ("host", *names), d.any(empty)

    def _vmbus(self, profile: HostProfile, build: Build) -> int:
        release = self._plugins.workshop.release(build.release)
        spoken = (*VMBUS_VERSIONS, *(PRE_WIN8_VERSIONS if release.has("vmbus_win7") else ()))
        allowed = []
        for cap, where in self._vm_values("vmbus", self._spec.vm.vmbus):
            highest = _version(cap)
            known = highest is None or highest in profile.vmbus.versions
            if known and any(v in spoken for v in profile.vmbus.versions if highest is None or v <= highest):
                allowed.append(where)
        return self.d.any(allowed)

    # the axes --------------------------------------------------------------------------------------------------

    def _layouts(self) -> Iterator[Constraint]:
        d = self.d
        cpus = self._vm_values("cpus", self._spec.vm.cpus)
        enough = []
        for nodes, where in self._vm_values("numa", None):
            least = nodes if isinstance(nodes, int) else 1
            enough.append(d.implies(where, d.any([node for count, node in cpus if count >= least])))
        yield Constraint("every node of a NUMA layout has a processor", d.all(enough), ("memory", "cpus"))
        if "memory" in self._axes:
            big = [v for v, plan in self._asks["memory"].items() if plan.vm["memory"] >= MIN_MEMORY]
            yield Constraint(f"a VM has at least {MIN_MEMORY >> 20}M of memory", d.one_of("memory", big), ("memory",))
        if "nr_cpus" in self._axes and "bits" in self._axes:
            few = [value for value in self._spec.varied["nr_cpus"] if int(value) <= 64]
            fits = d.either(d.one_of("bits", ("64",)), d.one_of("nr_cpus", few))
            text = "a 32-bit kernel has NR_CPUS of at most 64 (arch/x86/Kconfig: NR_CPUS_RANGE_END)"
            yield Constraint(text, fits, ("bits", "nr_cpus"))
        for name, axis in self._axes.items():
            for clash in axis.clashes:
                if clash.axis in self._axes:
                    both = d.both(d.one_of(name, (clash.value,)), d.one_of(clash.axis, clash.values))
                    yield Constraint(f"{name}={clash.value}: {clash.why}", d.opposite(both), (name, clash.axis))

    def _rules(self) -> Iterator[Constraint]:
        d = self.d
        for number, rule in enumerate(self._spec.rule):
            when = d.all([d.one_of(name, values) for name, values in rule.when.items()])
            then = FALSE
            if rule.then is not None:
                then = d.all([d.one_of(name, values) for name, values in rule.then.items()])
            speaks_of = (*rule.when, *(rule.then or ()))
            yield Constraint(f"rule[{number}] ({rule})", d.implies(when, then), speaks_of)


def _asked(axis: Axis, value: str) -> Plan:
    plan = Plan()
    axis.apply(plan, value)
    return plan


def _version(cap: int | str | None) -> int | None:
    if not isinstance(cap, str):
        return cap
    major, _, minor = cap.partition(".")
    return int(major) << 16 | int(minor)


def _check(spec: MatrixSpec, found: Legal, made: _Maker) -> None:
    """:raises InputError: no cell is left, or none with some value."""
    d = found.diagrams
    if found.node == FALSE:
        core = _core(d, found.constraints, TRUE)
        kconfig = [name for name in spec.varied if any(one.text == f"Kconfig's rules for {name}" for one in core)]
        why = "".join(made.why(name, spec.varied[name][0]) for name in kconfig)
        raise InputError(spec.source, limit=f"no cell is left: {_against(core)}{_among(spec, core, '')}{why}")
    for name, values in spec.varied.items():
        part = "symbols" if name in spec.symbols else "axes"
        for value in values:
            if not found.allows({name: value}):
                core = _core(d, found.constraints, d.one_of(name, (value,)))
                why = made.why(name, value) if core[0].text == f"Kconfig's rules for {name}" else ""
                limit = f"no cell has it: {_against(core)}{_among(spec, core, name)}{why}"
                raise InputError(spec.source, f"{part}.{name}", value, limit)


def _core(d: Diagrams, constraints: Sequence[Constraint], fixed: int) -> list[Constraint]:
    """Return as few constraints as contradict one another where ``fixed`` holds: none of them can be left out."""
    core = list(constraints)
    for one in constraints:
        rest = [other for other in core if other is not one]
        if d.both(d.all([other.node for other in rest]), fixed) == FALSE:
            core = rest
    return core


def _against(core: Sequence[Constraint]) -> str:
    texts = [one.text for one in core]
    if len(core) == 2:
        return " contradicts ".join(texts)
    return texts[0] if len(core) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]} contradict one another"


def _among(spec: MatrixSpec, core: Sequence[Constraint], name: str) -> str:
    """Say which values of the other axes there are to choose from."""
    others = dict.fromkeys(axis for one in core for axis in one.axes if axis != name and axis in spec.varied)
    chosen = [f"{axis}={'|'.join(spec.varied[axis])}" for axis in others]
    return f", with {', '.join(chosen)}" if chosen else ""
