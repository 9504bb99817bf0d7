"""Functions that the comparison runs. Each is packed by value, so each brings what it needs."""

# ruff: noqa: TRY003


def add(x, y=1):
    return x + y


def give_back(x):
    return x


def are_the_same(x, y):
    return x is y


def nothing():
    pass


def nested_data():
    return {"list": [1, 2.5, None, True], "text": "äöü\u2028\U0001f600", "bytes": b"\x00\xff", ("a", 1): {1, 2}}


def a_function():
    def inner(x):
        return 2 * x

    return inner


def raise_directly():
    raise ValueError("at once")


def raise_deeper():
    def first():
        def second():
            raise KeyError("deep")

        second()

    first()


def raise_from():
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("because of it") from error


def raise_while_handling():
    try:
        {}["missing"]
    except KeyError:
        raise RuntimeError("meanwhile")  # noqa: B904


def raise_own_class():
    class Mine(Exception):
        def __init__(self, number):
            super().__init__(f"number {number}")

    raise Mine(3)


def raise_without_text():
    raise AssertionError


def raise_many_lines():
    raise ValueError("one\ntwo\n  three ü")


def import_what_is_not_there():
    import there_is_no_such_module  # noqa: F401


def unserializable():
    return (number for number in range(3))


def sized(size):
    return "x" * size


def surroundings():
    import os

    names = ("GC_TASK_UUID", "GC_TASK_SANDBOX_DIR")
    return [os.getcwd(), {name: os.environ.get(name) for name in names}]


def spin():
    while True:
        pass  # noqa: E701  # fmt: skip


def json_text():
    return {"text": "ä\u2028\u0001\U0001f600", "number": 1.5}


def lone_surrogate():
    return "\ud800"


def count():
    global calls
    calls = globals().get("calls", 0) + 1
    return calls


def count_of_another():
    return globals().get("calls", 0)


def identity():
    import os
    import random

    return [os.getpid(), random.random()]


def leave():
    import sys

    sys.exit(3)


def raise_unspeakable():
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no")

    raise Unspeakable


def close_output():
    import os
    import sys

    sys.stdout.close()
    os.close(2)
    return "closed"


def fork(way):
    import os
    import sys

    child = os.fork()
    if child == 0:
        if way == "raise":
            os.execvp("there-is-no-such-program", ["there-is-no-such-program"])
        elif way == "exit":
            sys.exit(3)
        return "the child"
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])


for _function in [
    value for value in globals().values() if callable(value) and getattr(value, "__module__", "") == __name__
]:
    # Packed by value: a worker has no such module.
    _function.__module__ = "__main__"
