"""Error numbers, which the kernel's functions return negated.

Source: include/uapi/asm-generic/errno-base.h, errno.h, include/linux/errno.h. Not Python's ``errno``, whose values are
those of the machine it runs on.
"""

from __future__ import annotations

from typing import Final

EPERM: Final = 1
ENOENT: Final = 2
EINTR: Final = 4
EIO: Final = 5
ENXIO: Final = 6
E2BIG: Final = 7
EAGAIN: Final = 11
ENOMEM: Final = 12
EACCES: Final = 13
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
ENODEV: Final = 19
ENOTDIR: Final = 20
EISDIR: Final = 21
EINVAL: Final = 22
EFBIG: Final = 27
ENOSPC: Final = 28
EROFS: Final = 30
EDOM: Final = 33
ERANGE: Final = 34
EDEADLK: Final = 35
ENOSYS: Final = 38
ELOOP: Final = 40
ENODATA: Final = 61
ETIME: Final = 62
EPROTO: Final = 71
EBADMSG: Final = 74
EOVERFLOW: Final = 75
EMSGSIZE: Final = 90
EOPNOTSUPP: Final = 95
EADDRINUSE: Final = 98
ENOBUFS: Final = 105
ETIMEDOUT: Final = 110
ECONNREFUSED: Final = 111
EDQUOT: Final = 122
ECANCELED: Final = 125
EPROBE_DEFER: Final = 517
"""include/linux/errno.h; never leaves the kernel, like the next one."""
ENOTSUPP: Final = 524
