"""The hypervisor's functional specification as far as both architectures share it.

Counterpart of include/asm-generic/hyperv-tlfs.h. The names are defined in five parts by subject
(`~hvkernel.abi.tlfs_codes`, `~hvkernel.abi.tlfs_features`, `~hvkernel.abi.tlfs_synic`, `~hvkernel.abi.tlfs_hypercall`,
`~hvkernel.abi.tlfs_device`) and all are available here. What one architecture numbers for itself is in
that architecture's ``tlfs`` module, counterpart of its asm/hyperv-tlfs.h.
"""

from __future__ import annotations

from hvkernel.abi.tlfs_codes import *
from hvkernel.abi.tlfs_device import *
from hvkernel.abi.tlfs_features import *
from hvkernel.abi.tlfs_hypercall import *
from hvkernel.abi.tlfs_synic import *
