"""The error numbers against the kernel's three headers."""

from __future__ import annotations

import re
from pathlib import Path

from hvkernel.api.guest import errno

HEADERS = ("include/uapi/asm-generic/errno-base.h", "include/uapi/asm-generic/errno.h", "include/linux/errno.h")


def test_every_number_is_the_kernels(kernel_source: Path) -> None:
    text = "\n".join((kernel_source / name).read_text("utf-8") for name in HEADERS)
    kernels = {name: int(value) for name, value in re.findall(r"^#define\s+(E\w+)\s+(\d+)", text, re.MULTILINE)}
    ours = {name: value for name, value in vars(errno).items() if name.startswith("E")}
    assert len(ours) > 30
    assert ours == {name: kernels[name] for name in ours}
