"""A process that ends when its parent does: `kill -9` of a worker must not leave its child computing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process together with its parent; elsewhere than on Linux this does nothing.

    Call it first of all. NOTE: "parent" is the *thread* that started this process; it has to live as long.

    Args:
        parent_pid: Id of the process that started this one. If that is gone already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
