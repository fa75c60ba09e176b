"""``drivers/hv`` and ``drivers/clocksource/hyperv_timer.c`` of Linux 6.1, file by file.

Functions have the kernel's names and live in the module of the kernel's file. Their first argument is the guest's own
instance of that file's variables (:class:`~hvkernel.hv.hyperv_vmbus.HvVmbus`), because there may be many guests.
:func:`hvkernel.hv.objects.register` declares the kernel objects to the build.
"""
