"""The Python endpoints from PyPI against our interchange: 4.19 of the template kind, 3.16.1 of the direct kind."""

from __future__ import annotations

import pytest

KINDS = {"4.19.0": "template", "3.16.1": "direct"}


@pytest.fixture(scope="session", autouse=True)
def _client(in_client_environment: None) -> None:
    pass


@pytest.fixture(params=KINDS)
def endpoint(request, make_endpoint, interchange, client):
    """A started Python endpoint of each version in turn."""
    version = request.param
    return make_endpoint(interchange, client, KINDS[version], version=version, name=f"python-{version}")
