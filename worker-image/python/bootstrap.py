# Takes the package and its settings from standard input, the control socket: a length, then JSON.
def _bootstrap():
    import json
    import linecache
    import os
    import sys
    import types

    def read(count):
        parts = b""
        while len(parts) < count:
            part = os.read(0, count - len(parts))
            if not part:
                os._exit(0)
            parts += part
        return parts

    given = json.loads(read(int.from_bytes(read(4), "big")))
    package = types.ModuleType("waypost_executor")
    package.__path__ = []
    sys.modules["waypost_executor"] = package
    modules = {}

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name in modules:
                from importlib.machinery import ModuleSpec

                return ModuleSpec(name, Finder, origin=modules[name][0])
            return None

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            file, source = modules[module.__name__]
            module.__file__ = file
            exec(compile(source, file, "exec"), module.__dict__)

    for name, source in given["modules"].items():
        file = "<waypost_executor/" + name + ".py>"
        modules["waypost_executor." + name] = (file, source)
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    sys.meta_path.insert(0, Finder)
    return given["settings"]


_settings = _bootstrap()
del _bootstrap
from waypost_executor.main import main as _main  # noqa: E402

# Nothing of ours stays in __main__, where the functions of tasks may live.
globals().pop("_main")(globals().pop("_settings"))
