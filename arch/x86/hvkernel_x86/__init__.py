"""The x86 side of both halves: arch/x86/hyperv and what only an x86 host does."""

from typing import Final

HVKERNEL_CONTRACT: Final = "1.0"
