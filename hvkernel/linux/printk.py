"""printk.h, dev_printk.h: the kernel log.

A line's time stamp is local_clock() when it was printed: 0 until the arch has given the kernel a sched_clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hvkernel.api.guest.device import Device

KERN_EMERG: Final = 0
KERN_ALERT: Final = 1
KERN_CRIT: Final = 2
KERN_ERR: Final = 3
KERN_WARNING: Final = 4
KERN_NOTICE: Final = 5
KERN_INFO: Final = 6
KERN_DEBUG: Final = 7
"""Source of the levels: include/linux/kern_levels.h."""


class LogLine(NamedTuple):
    """One line of the log."""

    t: int
    """Nanoseconds of local_clock()."""
    level: int
    text: str

    def render(self) -> str:
        """The line as ``dmesg`` shows it: ``[    1.355868] hv_vmbus: Vmbus version:4.0``.

        Source: kernel/printk/printk.c:print_time, ``[%5lu.%06lu] ``.
        """
        seconds, ns = divmod(self.t, 1_000_000_000)
        return f"[{seconds:5d}.{ns // 1000:06d}] {self.text}"


class Printk:
    """The log and the functions that write it. ``prefixed`` views share the log."""

    __slots__ = ("_clock", "_debug", "_prefix", "log", "sinks")

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        debug: bool = False,
        _prefix: str = "",
        _log: list[LogLine] | None = None,
        _sinks: list[Callable[[LogLine], None]] | None = None,
    ) -> None:
        self._clock = clock
        self._debug = debug
        self._prefix = _prefix
        self.log: list[LogLine] = [] if _log is None else _log
        self.sinks: list[Callable[[LogLine], None]] = [] if _sinks is None else _sinks
        """Called with every line (a console, kmsg dumpers of a test)."""

    def prefixed(self, pr_fmt: str) -> Printk:
        """The same log with ``pr_fmt`` before every ``pr_*`` text."""
        return Printk(self._clock, debug=self._debug, _prefix=pr_fmt, _log=self.log, _sinks=self.sinks)

    def printk(self, level: int, text: str) -> None:
        """Append ``text`` at ``level``; a text of several lines becomes several lines with one stamp.

        :raises ValueError: when the level is not 0 to 7.
        """
        if not 0 <= level <= 7:
            raise ValueError(f"printk level {level} is outside KERN_EMERG (0) to KERN_DEBUG (7): {text!r}")
        t = self._clock()
        for part in text.split("\n"):
            line = LogLine(t, level, part)
            self.log.append(line)
            for sink in self.sinks:
                sink(line)

    def pr_emerg(self, text: str) -> None:
        self.printk(KERN_EMERG, self._prefix + text)

    def pr_alert(self, text: str) -> None:
        self.printk(KERN_ALERT, self._prefix + text)

    def pr_crit(self, text: str) -> None:
        self.printk(KERN_CRIT, self._prefix + text)

    def pr_err(self, text: str) -> None:
        self.printk(KERN_ERR, self._prefix + text)

    def pr_warn(self, text: str) -> None:
        self.printk(KERN_WARNING, self._prefix + text)

    def pr_notice(self, text: str) -> None:
        self.printk(KERN_NOTICE, self._prefix + text)

    def pr_info(self, text: str) -> None:
        self.printk(KERN_INFO, self._prefix + text)

    def pr_debug(self, text: str) -> None:
        if self._debug:
            self.printk(KERN_DEBUG, self._prefix + text)

    def dev_printk(self, level: int, dev: Device, text: str) -> None:
        """``driver name: text``; the driver is the bound one, else the bus's name, else nothing.

        Source: drivers/base/core.c:__dev_printk with dev_driver_string().
        """
        if dev.driver is not None:
            origin = dev.driver.name
        elif dev.bus is not None:
            origin = dev.bus.name
        else:
            origin = ""
        self.printk(level, f"{origin} {dev.name}: {text}")

    def dev_err(self, dev: Device, text: str) -> None:
        self.dev_printk(KERN_ERR, dev, text)

    def dev_warn(self, dev: Device, text: str) -> None:
        self.dev_printk(KERN_WARNING, dev, text)

    def dev_notice(self, dev: Device, text: str) -> None:
        self.dev_printk(KERN_NOTICE, dev, text)

    def dev_info(self, dev: Device, text: str) -> None:
        self.dev_printk(KERN_INFO, dev, text)

    def dev_dbg(self, dev: Device, text: str) -> None:
        if self._debug:
            self.dev_printk(KERN_DEBUG, dev, text)

    def render(self) -> str:
        """The whole log as ``dmesg`` prints it, one line each, with a final newline."""
        return "".join(line.render() + "\n" for line in self.log)
