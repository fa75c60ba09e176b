"""moduleparam.h: a module's parameters as files. Source: kernel/params.c of 6.1."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from hvkernel.api.guest.errno import EINVAL, ERANGE
from hvkernel.api.guest.kernel import ModuleParam
from hvkernel.api.guest.sysfs import Attribute

NUMBER: Final = re.compile(rb"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<oct>0[0-7]*)|(?P<dec>[1-9][0-9]*))\n?")
BASES: Final = (("hex", 16), ("oct", 8), ("dec", 10))


def kstrto32(buf: bytes, signed: bool) -> int | None:
    """Return the number in a text as kstrtoint() and kstrtouint() with base 0 read it.

    ``None`` for what is no number. :raises OverflowError: it does not fit. Source: lib/kstrtox.c.
    """
    found = NUMBER.fullmatch(buf.partition(b"\0")[0])
    if found is None or (found["sign"] == b"-" and not signed):
        return None
    value = next(int(found[kind], base) for kind, base in BASES if found[kind] is not None)
    value = -value if found["sign"] == b"-" else value
    least, most = (-(1 << 31), (1 << 31) - 1) if signed else (0, (1 << 32) - 1)
    if not least <= value <= most:
        raise OverflowError(value)
    return value


def param_show(param: ModuleParam, owner: object) -> str:
    """``%i`` or ``%u``."""
    return f"{param.get()}\n"


def param_store(param: ModuleParam, owner: object, buf: bytes) -> int:
    """Set the variable; -EINVAL for no number, -ERANGE for one that is too large."""
    try:
        value = kstrto32(buf, param.kind == "int")
    except OverflowError:
        return -ERANGE
    if value is None or param.set is None:
        return -EINVAL
    param.set(value)
    return 0


def param_attribute(param: ModuleParam) -> Attribute:
    """The file ``parameters/<name>``."""
    form = "%i" if param.kind == "int" else "%u"
    return Attribute(
        param.name, param.mode, partial(param_show, param), partial(param_store, param), form, "kernel/params.c"
    )
