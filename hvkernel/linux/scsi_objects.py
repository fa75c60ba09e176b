"""The SCSI modules of the slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel


def register(kernel: Kernel) -> None:
    """Declare them."""
