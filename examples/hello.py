"""What a program of your own may look like: a function, a command and an error, each run on the endpoint.

. .demo/env && .demo/venv/bin/python examples/hello.py
"""

import os

from globus_compute_sdk import Executor, ShellFunction


def greet(name):
    import platform

    return f"Hello {name}, from Python {platform.python_version()} on {platform.node()}"


def divide(number, by):
    return number / by


with Executor(endpoint_id=os.environ["WAYPOST_ENDPOINT_ID"]) as executor:
    print(executor.submit(greet, "world").result())

    squares = [executor.submit(pow, number, 2) for number in range(10)]
    print([square.result() for square in squares])

    uptime = executor.submit(ShellFunction("uname -sr; echo {word}"), word="done").result()
    print(uptime.stdout.strip())

    try:
        executor.submit(divide, 1, 0).result()
    except Exception as error:
        print("As it should be, dividing by zero fails:", str(error).strip().splitlines()[-1])
