"""All that a plugin may import, besides :mod:`hvkernel.abi`.

:mod:`hvkernel.api.hooks` has the hooks, :mod:`hvkernel.api.guest` what a driver sees of the kernel, and
:mod:`hvkernel.api.host` what a device sees of the hypervisor.
"""
