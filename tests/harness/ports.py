"""Free TCP ports, taken below the range from which the kernel picks ports for outgoing connections."""

from __future__ import annotations

import random
import socket

_RANGE = range(15000, 30000)
_given: set[int] = set()


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
    """A port that nothing listens on, on any address, and that this process was not given before."""
    for port in random.SystemRandom().sample(_RANGE, k=len(_RANGE)):
        if port not in _given and is_free(port) and is_free(port, "0.0.0.0"):
            _given.add(port)
            return port
    raise OSError(f"no TCP port between {_RANGE.start} and {_RANGE.stop} is free")


def answers(port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout).close()
    except OSError:
        return False
    return True
