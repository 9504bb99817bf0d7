"""Where the cluster is in the network, and where it keeps its things. One cluster at a time, so all is fixed."""

from __future__ import annotations

import os
from pathlib import Path

HOST = "10.250.0.1"
"""This machine, as the node and the pods see it: what they are to reach listens here."""
NODE = "10.250.0.2"
"""The cluster's only real node, where the API server listens, too."""
LINK_PREFIX = 30
"""Bits of the network that holds these two."""
NODE_NAME = "node"

POD_NETWORK = "10.244.0.0/22"
"""Addresses of pods: more than one node can run."""
SERVICE_NETWORK = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
"""The API server's own Service."""

API_PORT = 6443


def cache() -> Path:
    """Where programs and images are kept from one cluster to the next, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification wants a relative path there to be ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return folder / "waypost" / "cluster"
