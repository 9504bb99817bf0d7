"""These tests are programs of the unmodified SDK: pytest itself runs in the environment of each of its versions."""

from __future__ import annotations

import pytest
from harness import checkout


@pytest.fixture(scope="session", autouse=True)
def _client(in_client_environment: None) -> None:
    pass


@pytest.fixture(scope="session", params=checkout.KINDS)
def endpoint(request, endpoints):
    """The shared endpoint of each kind in turn."""
    return endpoints(request.param)


@pytest.fixture
def make_executor():
    """An `Executor` with the client's own brake on calls loosened, so that tests need not wait for it."""
    from globus_compute_sdk import Executor

    made = []

    def make(endpoint, **options):
        made.append(Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def executor(make_executor, endpoint):
    """An `Executor` for the endpoint."""
    return make_executor(endpoint)


@pytest.fixture(scope="session")
def compute(in_client_environment):
    """A `Client`."""
    from globus_compute_sdk import Client

    return Client()
