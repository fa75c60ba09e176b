"""Targets of ``hvkernel check``: the rules that a kernel's configuration must keep to run somewhere.

A target is a TOML file under ``targets/`` (its stem is the target's name). ``include`` names files whose rules come
first. Every rule says where it is from.

.. code-block:: toml

   title = "Generation 2 virtual machine"
   include = ["guest"]
   host = "ws2022/gen2"

   [[rule]]
   kind = "must"
   symbols = ["EFI"]
   least = "y"
   why = "a generation 2 machine has UEFI firmware only"
   evidence = "https://learn.microsoft.com/..."
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from hvkernel.config.errors import InputError
from hvkernel.config.files import parse_toml, read_toml
from hvkernel.config.profile import Model, profile_names
from hvkernel.config.render import input_error

__all__ = ["Condition", "Remark", "Rule", "Target", "load_target", "load_target_file", "target_names"]

Kind = Literal["must", "must-if-exists", "must-not", "one-of", "advice"]
ArchName = Literal["x86", "arm64"]
_SYMBOL: Final = re.compile(r"[A-Z0-9_]+")
_RELEASE: Final = re.compile(r"\d+\.\d+")
_CONDITION: Final = re.compile(r"([A-Z0-9_]+)(=|!=)([ymn])")
_HOST: Final = re.compile(r"[a-z0-9-]+(?:/gen[12])?")
_PARTS: Final = ("guest", "memory", "screen", "files", "azure-common", "passthrough")
"""Files that are only included."""


def _symbol(value: object) -> object:
    if not isinstance(value, str) or _SYMBOL.fullmatch(value) is None:
        raise ValueError("must be the name of a symbol, without CONFIG_")
    return value


def _release(value: object) -> object:
    if not isinstance(value, str) or _RELEASE.fullmatch(value) is None:
        raise ValueError("must be a kernel release, as 6.1")
    return value


def _release_key(value: str) -> tuple[int, ...]:
    return tuple(map(int, value.split(".")))


def _host(value: object) -> object:
    if not isinstance(value, str) or _HOST.fullmatch(value) is None or value.partition("/")[0] not in profile_names():
        raise ValueError(f"must be one of {', '.join(profile_names())}, with /gen1 or /gen2 behind it or without")
    return value


Symbol = Annotated[str, BeforeValidator(_symbol)]
Release = Annotated[str, BeforeValidator(_release)]
Host = Annotated[str, BeforeValidator(_host)]


class Condition(Model):
    """``SYMBOL=VALUE`` or ``SYMBOL!=VALUE``: the rule holds only where the symbol has the value, or has another."""

    symbol: str
    value: Literal["y", "m", "n"]
    other: Annotated[bool, Field(strict=True)] = False
    """Whether every value but this one is meant."""

    def holds(self, value: str) -> bool:
        """Whether it holds where the symbol has ``value``."""
        return (value != self.value) if self.other else (value == self.value)

    def __str__(self) -> str:
        return f"{self.symbol}{'!=' if self.other else '='}{self.value}"


def _condition(value: object) -> object:
    found = _CONDITION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be SYMBOL=y, SYMBOL=m or SYMBOL=n, or the same with !=")
    return {"symbol": found[1], "value": found[3], "other": found[2] == "!="}


class Rule(Model):
    """One rule of a target."""

    kind: Kind
    """``must``: every symbol is on. ``must-if-exists``: those that the release has are. ``must-not``: none is.
    ``one-of``: at least one is; the one that takes the fewest edits is proposed. ``advice``: as ``form``, but the
    kernel runs without it."""
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    form: Literal["must", "must-if-exists", "must-not", "one-of"] = "must-if-exists"
    """What an advice asks for; other rules have none."""
    least: Literal["y", "m"] = "m"
    """Least value: ``m`` allows a module."""
    boot: Annotated[bool, Field(strict=True)] = False
    """On the way to the root disk: without it the modelled boot ends. It is ``early``, too."""
    early: Annotated[bool, Field(strict=True)] = False
    """Needed before the root file system is there: a module must be in the initramfs."""
    modules: tuple[str, ...] = ()
    """Module of each symbol, in their order; none where the table of Hyper-V objects knows it."""
    arch: ArchName | None = None
    since: Release | None = None
    """First release that the rule is for."""
    until: Release | None = None
    """Last one."""
    when: tuple[Annotated[Condition, BeforeValidator(_condition)], ...] = ()
    """All must hold for the rule to count."""
    why: Annotated[str, Field(min_length=1)]
    """What goes wrong otherwise, as a clause."""
    evidence: Annotated[str, Field(min_length=1)]
    """Where that is written: a file of the kernel, a page, an issue."""

    @field_validator("form")
    @classmethod
    def _only_of_advice(cls, value: str, known: ValidationInfo) -> str:
        if known.data.get("kind", "advice") != "advice":
            raise ValueError(f"is for an advice, this is a {known.data['kind']}")
        return value

    @field_validator("modules")
    @classmethod
    def _one_each(cls, value: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        symbols = known.data.get("symbols", value)
        if value and len(value) != len(symbols):
            raise ValueError(f"must be one for each symbol: {len(value)} names for {len(symbols)} symbols")
        return value

    @field_validator("until")
    @classmethod
    def _not_before_since(cls, value: str | None, known: ValidationInfo) -> str | None:
        since = known.data.get("since")
        if value and since and _release_key(value) < _release_key(since):
            raise ValueError(f"must not be before since, which is {since}")
        return value

    @property
    def loaded_early(self) -> bool:
        """Whether a module must be in the initramfs."""
        return self.boot or self.early

    @property
    def wants(self) -> str:
        """What is asked for: ``form`` of an advice, else ``kind``."""
        return self.form if self.kind == "advice" else self.kind


class Remark(Model):
    """What is to be known of a kernel that fails, under a condition."""

    when: Annotated[tuple[Annotated[Condition, BeforeValidator(_condition)], ...], Field(min_length=1)]
    """All must hold."""
    text: Annotated[str, Field(min_length=1)]
    """What is to be known, as a clause."""
    evidence: Annotated[str, Field(min_length=1)]
    """Where that is written."""


class Target(Model):
    """One target with all its rules, those of included files first."""

    name: str
    """What reports call it; the file's own name where the file does not say."""
    title: str
    arches: tuple[ArchName, ...] = ("x86", "arm64")
    bits: tuple[Literal[32, 64], ...] = (32, 64)
    since: Release | None = None
    """First release that can be such a kernel."""
    arm64_since: Release | None = None
    """The same for arm64, where it is another."""
    host: Host | None = None
    """Host and generation on which the model boots such an x86 kernel; ``None``: not modelled."""
    arm64_host: Host | None = None
    """The same for arm64."""
    bios_host: Host | None = None
    """The same for a kernel without EFI, where the target has machines for it."""
    initrd: Literal["any", "none"] = "any"
    """``none``: such a kernel is started without an initramfs."""
    remarks: Annotated[tuple[Remark, ...], Field(validation_alias="remark")] = ()
    rules: Annotated[tuple[Rule, ...], Field(validation_alias="rule")]

    def first_release(self, arch: str) -> str | None:
        """First release that can be such a kernel on an architecture."""
        return self.arm64_since if arch == "arm64" and self.arm64_since else self.since

    def modelled_host(self, arch: str, *, efi: bool) -> str | None:
        """Host and generation on which the model boots such a kernel, as ``ws2022/gen2``; ``None``: not modelled."""
        if arch == "arm64":
            return self.arm64_host
        return self.host if efi or self.bios_host is None else self.bios_host


def target_names() -> tuple[str, ...]:
    """Names of all targets, sorted."""
    files = (resources.files("hvkernel.config") / "targets").iterdir()
    return tuple(sorted(f.name[:-5] for f in files if f.name.endswith(".toml") and f.name[:-5] not in _PARTS))


def load_target(name: str, *, where: str = "--target") -> Target:
    """Return the target called ``name``.

    :raises InputError: there is none of that name.
    """
    names = target_names()
    if name not in names:
        raise InputError(where, "target", name, f"must be one of {', '.join(names)}")
    return _target(name, f"targets/{name}.toml", _own(name))


def load_target_file(path: Path) -> Target:
    """Read a target that a user wrote; it may include the files of ours.

    :raises InputError: it cannot be read, is not TOML, or a key or value is wrong.
    """
    return _target(path.stem, str(path), read_toml(path))


def _own(name: str) -> dict[str, Any]:
    return parse_toml((resources.files("hvkernel.config") / "targets" / f"{name}.toml").read_text("utf-8"), name)


def _target(name: str, where: str, data: dict[str, Any]) -> Target:
    included = data.pop("include", [])
    known = (*_PARTS, *target_names())
    if not isinstance(included, list) or any(one not in known for one in included):
        raise InputError(where, "include", included, f"must be a list of {', '.join(known)}")
    own = data.pop("rule", [])
    if not isinstance(own, list):
        raise InputError(where, "rule", own, "must be tables, each under [[rule]]")
    rules = tuple(Rule.model_validate(rule) for one in included for rule in _rules_of(one))
    try:
        target = Target.model_validate({"name": name, **data, "rule": own})
    except ValidationError as error:
        raise input_error(where, error) from None
    return target.model_copy(update={"rules": (*rules, *target.rules)})


def _rules_of(name: str) -> list[Any]:
    data = _own(name)
    return [*(rule for one in data.get("include", []) for rule in _rules_of(one)), *data.get("rule", [])]
