"""The x86 side of both halves: arch/x86/hyperv and what only an x86 host does."""
