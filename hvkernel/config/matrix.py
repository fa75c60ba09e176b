"""What a matrix runs, as a user writes it in TOML: axes with their values, how much of them is covered, and a budget.

.. code-block:: toml

   cover = "pairwise"
   seeds = 4

   [axes]
   arch = ["x86", "arm64"]
   page_size = ["4K", "16K", "64K"]
   cpus = [1, 2, 64]

   [symbols]
   HYPERV_NET = ["y", "m", "n"]

   [vm]
   memory = "2G"

   [[rule]]
   when = { arch = "arm64" }
   then = { cpus = [2, 64] }

What an axis does, and which values it knows, is for :mod:`hvkernel.matrix.axes` to say; here is only the shape.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hvkernel.config.errors import InputError
from hvkernel.config.files import read_toml
from hvkernel.config.profile import Model
from hvkernel.config.render import input_error
from hvkernel.config.vm import VmConfig

__all__ = [
    "Budget",
    "ConfigRow",
    "MatrixSpec",
    "Rule",
    "change_spec",
    "default_spec",
    "load_spec",
    "parse_cover",
    "spec_of",
]

MAX_SEEDS: Final = 1_000_000
"""Most seeds of one spec: what one store is meant to hold."""

MAX_CONFIG: Final = 16 << 20
"""Largest ``.config`` of a row, in bytes, as for :mod:`hvkernel.kconfig.configfile`."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VALUE: Final = re.compile(r"[A-Za-z0-9_.:/+-]{1,64}")
_COVER: Final = re.compile(r"t=([1-9])")
_VARIED: Final = ("host", "generation", "page_size", "seed")
"""Keys of a VM that ``[vm]`` does not take: they are axes, or a cell's own."""


def _name(value: object) -> object:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError("a name has letters, digits, _ and - only")
    return value


def _value(value: object) -> object:
    """Numbers and truth values are texts from here on: ``cpus = [1, 2]``."""
    if isinstance(value, bool):
        return "y" if value else "n"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or _VALUE.fullmatch(value) is None:
        raise ValueError("a value has letters, digits and _ . : / + - only")
    return value


def _values(value: object) -> object:
    """One value may stand without its brackets."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("must have at least one value")
    checked = tuple(map(_value, values))
    for number, one in enumerate(checked):
        if one in checked[:number]:
            raise ValueError(f"has {one!r} twice")
    return checked


def parse_cover(text: object) -> str | int:
    """Return how much is covered: ``"pairwise"``, ``"full"``, ``"t=3"``, or a number of random cells.

    :raises ValueError: it is none of these.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 1:
            raise ValueError("a number of random cells is at least 1")
        return text
    if isinstance(text, str):
        if text.isdecimal() and text.isascii():
            return parse_cover(int(text))
        if text in ("pairwise", "full") or _COVER.fullmatch(text):
            return "pairwise" if text == "t=2" else text
    raise ValueError("must be pairwise, full, t=1 to t=9, or a number of random cells")


def _seeds(value: object) -> object:
    """A number N stands for the seeds 0 to N-1."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            raise ValueError(f"must be 1 to {MAX_SEEDS} seeds, or a list of them")
        return tuple(range(value))
    if isinstance(value, list | tuple) and len(set(value)) != len(value):
        raise ValueError("has a seed twice")
    return value


Name = Annotated[str, BeforeValidator(_name)]
Value = Annotated[str, BeforeValidator(_value)]
Values = Annotated[tuple[str, ...], BeforeValidator(_values)]
Seed = Annotated[int, Field(ge=0, lt=1 << 64, strict=True)]


class Budget(Model):
    """What one cell may take before it counts as hung."""

    seconds: Annotated[float, Field(gt=0, le=1e6)] = 900.0
    """Virtual time, in seconds."""
    steps: Annotated[int, Field(ge=1000, strict=True)] = 2_000_000
    """Steps of the scheduler: preemption points that were passed, and times that a task got a processor."""


class ConfigRow(Model):
    """A ``.config`` that cells can be built from. A spec carries its text, so that it can run on another machine."""

    file: str
    """Its path, for messages."""
    text: str


class Rule(Model):
    """A constraint of the user's own: cells in which all of ``when`` holds have all of ``then``.

    Without ``then`` there are no such cells.
    """

    when: Mapping[Name, Values]
    then: Mapping[Name, Values] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.when and not self.then:
            raise ValueError("when: must name an axis")
        return self

    def __str__(self) -> str:
        when = " and ".join(f"{axis}={'|'.join(values)}" for axis, values in self.when.items())
        if self.then is None:
            return f"never {when}"
        then = " and ".join(f"{axis}={'|'.join(values)}" for axis, values in self.then.items())
        return f"{when or 'always'}: {then}"


class MatrixSpec(Model):
    """What to run. The axes of a cell stand in the order of ``axes``, then of ``symbols``."""

    title: str = ""
    source: str = "<spec>"
    """The file, for messages; set by :func:`load_spec`."""
    cover: Annotated[str | int, BeforeValidator(parse_cover)] = "pairwise"
    """``pairwise``, ``full``, ``t=3`` and the like, or a number of cells drawn at random. Where it is left out and
    there is one axis, all its values."""
    draw: Seed = 0
    """Seed of that draw."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MAX_SEEDS), BeforeValidator(_seeds)] = (0,)
    """Each combination is run under each of these seeds."""
    least: Annotated[int, Field(ge=1, le=100_000_000, strict=True)] | None = None
    """Instead of ``seeds``: as many of them, from 0 on, as give at least this many cells."""
    axes: Mapping[Name, Values] = Field(default_factory=dict)
    symbols: Mapping[Name, Annotated[tuple[Literal["y", "m", "n"], ...], BeforeValidator(_values)]] = Field(
        default_factory=dict
    )
    """Kconfig symbols, without ``CONFIG_``, each an axis of its own."""
    config: Mapping[Name, Literal["y", "m", "n"]] = Field(default_factory=dict)
    """Kconfig symbols that every cell has, unless one of its axes says otherwise."""
    configs: Mapping[Name, ConfigRow] = Field(default_factory=dict)
    """The ``.config`` files that axis ``config`` can name. In the file: a path, relative to it."""
    vm: VmConfig = VmConfig()
    """The VM of every cell, as in a VM file."""
    rule: tuple[Rule, ...] = ()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.least is not None and "seeds" in self.model_fields_set:
            raise ValueError("least: says what seeds says")
        for name in self.symbols:
            if name in self.axes:
                raise ValueError(f"symbols.{name}: is an axis of axes, too")
        if not self.axes and not self.symbols:
            raise ValueError("axes: must name at least one axis")
        for key in _VARIED:
            if key in self.vm.model_fields_set:
                raise ValueError(f"vm.{key}: is no key of a matrix; take axis host or page_size, or seeds")
        return self

    @property
    def varied(self) -> dict[str, tuple[str, ...]]:
        """Every axis with its values, symbols included, in order."""
        return {**self.axes, **self.symbols}

    def to_json(self) -> str:
        """Return the spec as one line, for a store or another process."""
        return self.model_dump_json(exclude_unset=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls.model_validate_json(text)


def default_spec() -> MatrixSpec:
    """Return the spec that runs when none is given: pairwise over all that is modelled."""
    file = resources.files("hvkernel.matrix") / "data" / "default.toml"
    return spec_of(tomllib.loads(file.read_text("utf-8")), "default.toml", Path())


def load_spec(path: str | Path) -> MatrixSpec:
    """Read a spec and the ``.config`` files that it names.

    :raises InputError: a file cannot be read, is not TOML, has an unknown key, or a value is out of its limits.
    """
    return spec_of(read_toml(path), str(path), Path(path).parent)


def spec_of(data: Mapping[str, Any], name: str, beside: Path) -> MatrixSpec:
    """Return the spec of a file's content, and read the ``.config`` files that it names.

    :param data: what TOML makes of it.
    :param name: of the file, for messages.
    :param beside: directory that the paths of ``configs`` are relative to.
    :raises InputError: an unknown key, a value out of its limits, or a file that cannot be read.
    """
    if "source" in data:
        raise InputError(name, "source", limit="unknown key")
    configs = data.get("configs")
    if isinstance(configs, Mapping):
        rows = {key: _row(value, f"configs.{key}", name, beside) for key, value in configs.items()}
        data = {**data, "configs": rows}
    try:
        return MatrixSpec.model_validate({**data, "source": name})
    except ValidationError as error:
        raise input_error(name, error) from None


def change_spec(spec: MatrixSpec, changes: Mapping[str, Any], *, where: str) -> MatrixSpec:
    """Return ``spec`` with some keys replaced, checked again as a whole.

    :param where: where the changes were written, for the error.
    :raises InputError: a changed value is out of its limits, or does not fit the rest.
    """
    if not changes:
        return spec
    kept = spec.model_dump(exclude_unset=True)
    for one, other in (("seeds", "least"), ("least", "seeds")):
        if one in changes:
            kept.pop(other, None)
    try:
        return MatrixSpec.model_validate({**kept, **changes})
    except ValidationError as error:
        raise input_error(where, error) from None


def _row(path: object, field: str, name: str, beside: Path) -> ConfigRow:
    if not isinstance(path, str):
        raise InputError(name, field, path, "must be the path of a .config")
    file = beside / path
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CONFIG + 1)
    except OSError as error:
        raise InputError(name, field, path, error.strerror or "cannot be read") from None
    if len(data) > MAX_CONFIG:
        raise InputError(name, field, path, f"is larger than {MAX_CONFIG} bytes, no .config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(name, field, path, "is not UTF-8 text") from None
    return ConfigRow(file=str(file), text=text if "\n" in text else text + "\n")
