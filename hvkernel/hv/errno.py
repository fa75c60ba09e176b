"""The error numbers that drivers/hv returns (include/uapi/asm-generic/errno*.h), positive."""

from __future__ import annotations

from typing import Final

ENXIO: Final = 6
EAGAIN: Final = 11
ENOMEM: Final = 12
EBUSY: Final = 16
EEXIST: Final = 17
ENODEV: Final = 19
EINVAL: Final = 22
EIO: Final = 5
ENOSPC: Final = 28
EDOM: Final = 33
ERANGE: Final = 34
EMSGSIZE: Final = 90
EOPNOTSUPP: Final = 95
ENOBUFS: Final = 105
ETIMEDOUT: Final = 110
ECONNREFUSED: Final = 111
EDQUOT: Final = 122
