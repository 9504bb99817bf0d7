"""Free TCP ports, taken below the range from which the kernel picks ports for outgoing connections.

A port is chosen here and bound by a service that starts later, while other suites of this machine choose theirs. So
each that is given is also reserved, machine-wide, by an abstract Unix socket of its number: the kernel lets only one
process have that, and takes it back when the process is gone.
"""

from __future__ import annotations

import random
import socket

_RANGE = range(15000, 30000)
_reservations: dict[int, socket.socket] = {}


def _reserve(port: int) -> bool:
    """Whether nobody had reserved the port; from now on this process has."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0waypost-port-{port}")
    except OSError:
        reservation.close()
        return False
    _reservations[port] = reservation
    return True


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a listener could be opened on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens on, on any address, and that no process was given that still runs."""
    for port in random.SystemRandom().sample(_RANGE, k=len(_RANGE)):
        if is_free(port) and is_free(port, "0.0.0.0") and _reserve(port):
            return port
    raise OSError(f"no TCP port between {_RANGE.start} and {_RANGE.stop} is free")


def answers(port: int, timeout: float = 1.0, address: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port, of this machine unless another address is named."""
    try:
        socket.create_connection((address, port), timeout).close()
    except OSError:
        return False
    return True
