"""moduleparam.h: a module's parameters as files. Source: kernel/params.c of 6.1."""

from __future__ import annotations

from functools import partial

from hvkernel.api.guest.errno import EINVAL, ERANGE
from hvkernel.api.guest.kernel import ModuleParam
from hvkernel.api.guest.kstrtox import kstrtox
from hvkernel.api.guest.sysfs import Attribute


def param_show(param: ModuleParam, owner: object) -> str:
    """``%i`` or ``%u``."""
    return f"{param.get()}\n"


def param_store(param: ModuleParam, owner: object, buf: bytes) -> int:
    """Set the variable; -EINVAL for no number, -ERANGE for one that is too large."""
    try:
        value = kstrtox(buf, 32, param.kind == "int")
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
