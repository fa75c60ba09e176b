"""SCSI, to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel


class Scsi:
    """``kernel.scsi``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
