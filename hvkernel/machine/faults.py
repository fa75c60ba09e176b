"""What the machine raises: faults of the modelled hardware, and misuse of the machine by its caller.

A :class:`Fault` is an event inside the model: the guest's code may catch it, as an exception table does.
A :class:`MachineError` is a mistake of the program that drives the model and is never part of a run.
"""

from __future__ import annotations


class Fault(Exception):
    """A fault that the hardware or the hypervisor delivers to the code that caused it."""


class PageFault(Fault):
    """An access to guest physical memory that memory, an overlay or a protection refuses.

    :param gpa: byte address of the first byte that is refused.
    :param write: True for a write.
    :param why: short reason, without the address.
    :param side: "guest" or "host": which of the two doors the access came through.
    """

    def __init__(self, gpa: int, write: bool, why: str, side: str = "guest") -> None:
        super().__init__(f"{side} {'write to' if write else 'read of'} gpa {gpa:#x}: {why}")
        self.gpa = gpa
        self.write = write
        self.why = why
        self.side = side


class GeneralProtectionFault(Fault):
    """A register access that the processor refuses (on x86 the #GP of RDMSR and WRMSR).

    :param register: the register's number.
    :param why: short reason, may be empty.
    """

    def __init__(self, register: int, why: str = "") -> None:
        super().__init__(f"general protection fault on register {register:#x}" + (f": {why}" if why else ""))
        self.register = register
        self.why = why


class ProtectionFault(GeneralProtectionFault):
    """A guest's write to a page that answers writes with #GP: the hypercall page.

    Source: TLFS, "Establishing the Hypercall Interface". ``register`` is -1: none was accessed.

    :param gpa: byte address of the first byte that is refused.
    :param why: short reason, without the address.
    """

    def __init__(self, gpa: int, why: str) -> None:
        Fault.__init__(self, f"general protection fault on guest write to gpa {gpa:#x}: {why}")
        self.register = -1
        self.gpa = gpa
        self.why = why


class UndefinedOpcode(Fault):
    """An instruction that this processor, or this hypervisor, does not have.

    :param opcode: the bytes that were to be executed.
    """

    def __init__(self, opcode: bytes = b"") -> None:
        super().__init__(f"undefined opcode {opcode.hex(' ') or '(none)'}")
        self.opcode = opcode


class MachineError(RuntimeError):
    """The machine was used against its rules (blocking outside a task, another thread, after close, ...)."""


class MachineStuck(MachineError):
    """:meth:`Machine.call` cannot finish: nothing can run and no timer is armed. Names the tasks that wait."""


class LimitReached(MachineError):
    """:meth:`Machine.call` did not finish within its limit of virtual time or of steps."""


class TaskExit(BaseException):
    """Raised inside a task that is being ended by :meth:`Task.kill` or :meth:`Machine.close`.

    Derives from BaseException, so that ``except Exception`` in guest or host code
    does not swallow it. ``finally`` blocks run, and may not block.
    """
