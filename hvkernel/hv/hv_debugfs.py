"""``drivers/hv/hv_debugfs.c``: delays that a tester puts before a channel's reads (CONFIG_HYPERV_TESTING).

``/sys/kernel/debug/hyperv/<instance GUID>/fuzz_test_state`` switches them on for a device, the two files below
``delay`` say how long each is, in microseconds. What is set for a device holds for all its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.errno import EINVAL, ERANGE
from hvkernel.api.guest.hyperv import HvDevice, VmbusChannel
from hvkernel.api.guest.kstrtox import kstrtox
from hvkernel.api.guest.sysfs import Attribute, Dentry

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = ["DELAY_FILES", "STATE_FILE", "HvDebugfs"]

MAX_DELAY: Final = 1000
"""Longest delay, microseconds."""
SET_BUF: Final = 24
"""Bytes of a write that are looked at, and one for the NUL (fs/libfs.c: ``struct simple_attr``)."""


def simple_attr_number(buf: bytes) -> int:
    """Return the number that was written, or -EINVAL, -ERANGE. Source: fs/libfs.c:simple_attr_write_xsigned."""
    try:
        value = kstrtox(buf[: SET_BUF - 1], 64, signed=False)
    except OverflowError:
        return -ERANGE
    return -EINVAL if value is None else value


def hv_debugfs_delay_get(field: str, channel: VmbusChannel) -> str:
    """The delay in microseconds."""
    return f"{getattr(channel, field)}\n"


def hv_debugfs_delay_set(field: str, channel: VmbusChannel, buf: bytes) -> int:
    """Set the delay, at most 1000 microseconds, else -EINVAL."""
    value = simple_attr_number(buf)
    if value > MAX_DELAY:
        return -EINVAL
    if value >= 0:
        setattr(channel, field, value)
    return min(value, 0)


def hv_debugfs_state_get(channel: VmbusChannel) -> str:
    """1 while the device's delays are made."""
    return f"{int(channel.fuzz_testing_state)}\n"


def hv_debugfs_state_set(channel: VmbusChannel, buf: bytes) -> int:
    """Switch them on (1) or off (0); -EINVAL for anything else."""
    value = simple_attr_number(buf)
    if value not in (0, 1):
        return value if value < 0 else -EINVAL
    channel.fuzz_testing_state = bool(value)
    return 0


STATE_FILE: Final = Attribute(
    "fuzz_test_state",
    0o644,
    hv_debugfs_state_get,
    hv_debugfs_state_set,
    "%llu",
    "drivers/hv/hv_debugfs.c:hv_debugfs_state_get, hv_debugfs_state_set",
)
DELAY_FILES: Final = tuple(
    Attribute(
        name,
        0o644,
        hv_debugfs_delay_get,
        hv_debugfs_delay_set,
        "%llu",
        "drivers/hv/hv_debugfs.c:hv_debugfs_delay_get, hv_debugfs_delay_set",
    )
    for name in ("fuzz_test_buffer_interrupt_delay", "fuzz_test_message_delay")
)
DELAY_FIELDS: Final = ("fuzz_testing_interrupt_delay", "fuzz_testing_message_delay")
"""What each of :data:`DELAY_FILES` sets, of ``struct vmbus_channel``."""


class HvDebugfs:
    """The functions of hv_debugfs.c for one guest; there is none without CONFIG_HYPERV_TESTING."""

    def __init__(self, v: HvVmbus) -> None:
        self._v = v
        self._debugfs = v.kernel.debugfs
        self._root: Dentry | None = None

    def hv_debug_init(self) -> int:
        """Make ``hyperv``; 0 or a negative errno."""
        made = self._debugfs.debugfs_create_dir("hyperv", None)
        if isinstance(made, int):
            self._v.pr.pr_debug("debugfs_hyperv: hyperv/ not created")
            return made
        self._root = made
        return 0

    def hv_debug_add_dev_dir(self, dev: HvDevice) -> int:
        """Make the device's files; 0 or a negative errno, which nobody looks at."""
        if self._root is None:
            self._v.pr.pr_debug("debugfs_hyperv: hyperv/ not in root debugfs path")
            return -EINVAL
        made = self._debugfs.debugfs_create_dir(dev.name, self._root)
        if isinstance(made, int):
            self._v.pr.pr_debug(f"debugfs_hyperv: hyperv/{dev.name}/ not created")
            return made
        self._debugfs.debugfs_create_file(STATE_FILE, made, dev.channel)
        dev.debug_dir = made
        delay = self._debugfs.debugfs_create_dir("delay", made)
        if isinstance(delay, int):
            return delay
        for attr, field in zip(DELAY_FILES, DELAY_FIELDS, strict=True):
            self._debugfs.debugfs_create_file(attr.bound(field), delay, dev.channel)
        return 0

    def hv_debug_rm_dev_dir(self, dev: HvDevice) -> None:
        """Take the device's files away."""
        self._debugfs.debugfs_remove_recursive(dev.debug_dir)
        dev.debug_dir = None

    def hv_debug_rm_all_dir(self) -> None:
        """Take ``hyperv`` away with all that is in it."""
        self._debugfs.debugfs_remove_recursive(self._root)
        self._root = None

    def interrupt_delay(self, channel: VmbusChannel) -> None:
        """``hv_debug_delay_test(channel, INTERRUPT_DELAY)``: before the channel's callback."""
        primary = channel.primary_channel or channel
        if primary.fuzz_testing_state:
            self._v.sched.udelay(primary.fuzz_testing_interrupt_delay)

    def message_delay(self, channel: VmbusChannel) -> None:
        """``hv_debug_delay_test(channel, MESSAGE_DELAY)``: before each look at the inbound ring."""
        primary = channel.primary_channel or channel
        if primary.fuzz_testing_state:
            self._v.sched.udelay(primary.fuzz_testing_message_delay)
