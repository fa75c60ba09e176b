"""What a driver may know of the guest: the kernel's headers.

Plain structs to construct (:class:`Completion`, :class:`Work`, :class:`ScsiHostTemplate`, ...) and Protocols for the
functions that work on them, one per kernel header, reached through :class:`Kernel`.
``hvkernel.linux`` and ``hvkernel.hv`` implement the Protocols.
"""

from __future__ import annotations

from .arch import *
from .block import *
from .device import *
from .hyperv import *
from .kernel import *
from .mm import *
from .mshyperv import *
from .sched import *
from .scsi import *
from .smp import *
from .sysfs import *
from .time import *
from .tracing import *
