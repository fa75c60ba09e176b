"""percpu.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hvkernel.api.guest.smp import PerCpu
from hvkernel.linux.smp import Cpus

T = TypeVar("T")


class PerCpuApi:
    """``kernel.percpu``."""

    def __init__(self, cpus: Cpus) -> None:
        self._cpus = cpus

    def alloc_percpu(self, make: Callable[[int], T]) -> PerCpu[T]:
        """A value per possible CPU, made by ``make(cpu)``."""
        return PerCpu([make(cpu) for cpu in range(self._cpus.nr_cpu_ids)])

    def this_cpu_ptr(self, var: PerCpu[T]) -> T:
        """The caller's CPU's value."""
        return var.values[self._cpus.smp_processor_id()]

    def this_cpu_write(self, var: PerCpu[T], value: T) -> None:
        """Set the caller's CPU's value."""
        var.values[self._cpus.smp_processor_id()] = value
