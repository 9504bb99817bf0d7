"""Which accelerators a task sees: those of its slot alone, by the variables that Parsl's workers set."""

import os

#: For CUDA, ROCm and oneAPI's Level Zero.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def pin(name):
    """Lets this process, and what it starts, see the accelerator ``name`` and no other. Nothing that uses one may have been
    imported before."""
    for variable in _VISIBLE:
        os.environ[variable] = name
    # The names are then in the order of the bus, as they are for CUDA.
    os.environ["ZE_ENABLE_PCI_ID_DEVICE_ORDER"] = "1"
