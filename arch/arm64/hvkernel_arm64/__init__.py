"""The arm64 side of both halves: arch/arm64/hyperv and what only an arm64 host does."""

from typing import Final

HVKERNEL_CONTRACT: Final = "1.0"
