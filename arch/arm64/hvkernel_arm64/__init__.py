"""The arm64 side of both halves: arch/arm64/hyperv and what only an arm64 host does."""
