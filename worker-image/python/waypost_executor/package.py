"""Loads the SDK's serializer without the rest of the SDK.

``import globus_compute_sdk`` starts threads and loads its web client, and a process with threads must not fork. Its
serializer needs neither. So the package's module is put in place without running its ``__init__``; that is run, in the
same module object, when somebody asks for one of the names that it defines. Only executors ever do.
"""

import importlib.util
import sys

PACKAGE = "globus_compute_sdk"


def install():
    """Puts the package in place, its ``__init__`` not yet run. Does nothing if it was imported already."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    module = importlib.util.module_from_spec(spec)

    def complete(name):
        if name.startswith("__") and name != "__version__":
            # Asked for by the import system and by introspection, and defined by no __init__.
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        module.__dict__.pop("__getattr__", None)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            module.__getattr__ = complete
            raise
        return getattr(module, name)

    module.__getattr__ = complete
    sys.modules[PACKAGE] = module
