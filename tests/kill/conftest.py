"""Tests in which something dies. Each has an endpoint of its own."""

from __future__ import annotations

import pytest
from harness import checkout
from harness.interchange import Client, Interchange


@pytest.fixture(scope="session", autouse=True)
def _client(in_client_environment: None) -> None:
    pass


@pytest.fixture(params=checkout.KINDS)
def endpoint(request, make_endpoint, interchange: Interchange, client: Client):
    """A started endpoint of ours, of each kind in turn."""
    return make_endpoint(interchange, client, request.param, python=checkout.clients("4.19.0").python)


@pytest.fixture
def executor(endpoint):
    from globus_compute_sdk import Executor

    executor = Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)
