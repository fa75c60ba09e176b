"""Executable model of Linux on Hyper-V: the guest subsystem and the hypervisor it talks to."""

__version__ = "0.1.0"
