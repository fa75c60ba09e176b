"""The slice of Linux that ``drivers/hv`` and its drivers stand on, under the kernel's names.

One module per kernel header; :class:`~hvkernel.linux.kernel.Kernel` holds one object of each. Everything is per guest:
no module here has mutable state.
"""
