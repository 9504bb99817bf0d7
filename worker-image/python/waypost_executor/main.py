"""Where the warm process begins, called by the few lines that the supervisor passes on the command line."""

import json
import os
import platform
import signal
import socket
import sys


def main(settings):
    """Prepares this process, and serves the supervisor until it closes the control socket."""
    # A session of its own: a Ctrl-C at the terminal is for the supervisor alone.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        contract, ready = _prepare(settings)
    except BaseException as error:
        reason = f"{sys.executable} cannot run tasks: {type(error).__name__}: {error}"
        control.sendall(json.dumps({"unusable": reason}).encode() + b"\n")
        raise SystemExit(0) from None
    from waypost_executor import warm

    warm.run(control, contract, settings["accelerators"], ready)


def _prepare(settings):
    if sys.version_info < (3, 8):
        raise RuntimeError(f"Python 3.8 or later is needed, and this is {platform.python_version()}")
    from waypost_executor import native

    # If it hangs, or is stopped, it does not see that the control socket is closed.
    native.die_with_parent(signal.SIGKILL)
    # "-c" puts the current directory first, whatever it becomes; tasks expect the one that the worker began in.
    if sys.path and sys.path[0] == "":
        sys.path[0] = os.getcwd()

    from waypost_executor import package

    package.install()
    from waypost_executor import contract

    made = contract.Contract(
        settings["endpoint_id"],
        settings["working_directory"],
        settings["sandbox"],
        settings["allowed_serializers"],
        settings["result_size_limit"],
    )
    ready = {
        "ready": {
            "python_version": platform.python_version(),
            "sdk_version": contract.sdk_version,
            "dill_version": contract.dill.__version__,
        }
    }
    return made, ready
