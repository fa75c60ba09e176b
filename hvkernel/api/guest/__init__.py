"""What a driver may know of the guest: the kernel's headers.

Plain structs to construct (:class:`Completion`, :class:`Work`, :class:`ScsiHostTemplate`, ...) and Protocols for the
functions that work on them, one per kernel header, reached through :class:`Kernel`.
``hvkernel.linux`` and ``hvkernel.hv`` implement the Protocols.
"""

from __future__ import annotations

from .arch import *  # noqa: F403  # all of it is public
from .block import *  # noqa: F403  # all of it is public
from .device import *  # noqa: F403  # all of it is public
from .hyperv import *  # noqa: F403  # all of it is public
from .kernel import *  # noqa: F403  # all of it is public
from .mm import *  # noqa: F403  # all of it is public
from .mshyperv import *  # noqa: F403  # all of it is public
from .sched import *  # noqa: F403  # all of it is public
from .scsi import *  # noqa: F403  # all of it is public
from .smp import *  # noqa: F403  # all of it is public
from .time import *  # noqa: F403  # all of it is public
