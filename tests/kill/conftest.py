"""Tests in which something dies. Each has an endpoint of its own."""

from __future__ import annotations

import pytest
from harness import checkout
from harness.interchange import Client, Interchange, client_settings


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


@pytest.fixture
def become(monkeypatch, tmp_path_factory):
    """Makes this process a client of another interchange than the shared one, for the rest of the test."""

    def become(interchange: Interchange, client: Client) -> None:
        from globus_compute_sdk import Executor

        settings = client_settings(interchange.port, client, tmp_path_factory.mktemp("client"))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        # The group that the SDK shares between the executors of a process is of another service.
        monkeypatch.setattr(Executor, "_default_task_group_id", None)

    return become
