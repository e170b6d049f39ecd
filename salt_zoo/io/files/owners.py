"""Which process made a file, and whether that process is gone: of drafts and locks."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

#: How an owner is written in a file's name.
TOKEN = r"(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+)-(?P<started>\d+)"

#: The namespace of process ids outside of containers (a constant of Linux).
_OUTER_NAMESPACE = "4026531836"


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: its machine. A container with process ids of its own is another host: from outside,
            its ids mean other processes.
        started: when it started, in ticks since the machine did; 0 where that cannot be known. A
            process id alone may have been given to another process since.
    """

    host: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(_host(), pid, _started(pid) or 0)

    @property
    def token(self) -> str:
        """For a file's name."""
        return f"{self.host}-{self.pid}-{self.started}"

    @property
    def is_here(self) -> bool:
        """Whether it ran on this host, so that one can see whether it still does."""
        return self.host == _host()

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; of other hosts that is not known."""
        if not self.is_here:
            return False
        if Path("/proc/self/stat").exists():
            return _started(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            pass
        return False


def _host() -> str:
    """The host's name as letters that a file's name may have."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", socket.gethostname()).strip("-")[:60] or "host"
    try:
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        namespace = ""
    return name if namespace in ("", _OUTER_NAMESPACE) else f"{name}-{namespace}"


def _started(pid: int) -> int | None:
    """When a process of this host started; None if there is none, or one that only waits to be
    buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
