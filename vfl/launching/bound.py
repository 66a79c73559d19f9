"""A command that ends with the process that started it, even if that one is killed: bound.py PARENT COMMAND...

Run as a file, so that nothing of the library is imported before the command takes this process over. On Linux the
kernel tells it of its parent's end (SIGTERM, which torchrun passes on to its ranks); elsewhere it is the plain command,
which may outlive its parent.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept by execvp


def main() -> None:
    """Bind this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before
            sys.exit(143)
    if sys.platform == "win32":  # there, exec ends this process and lets the other go
        sys.exit(subprocess.call(command))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
