"""Two clients of one interchange, and endpoints that are no more than their connections."""

from __future__ import annotations

import os
import uuid

import pytest
from interchange.calls import Api, Speaker


@pytest.fixture(scope="session")
def interchange(make_interchange, request):
    """An interchange that these tests share, and that logs all it has to say: a test looks for secrets in that. It keeps
    its data in SQLite, or PostgreSQL if WAYPOST_TEST_DATABASE says so."""
    options = {}
    if os.environ.get("WAYPOST_TEST_DATABASE") == "postgresql":
        options["database"] = request.getfixturevalue("database")()
    return make_interchange(name="interchange", environment={"WAYPOST_INTERCHANGE_LOG": "debug"}, **options)


@pytest.fixture(scope="session")
def alice(interchange):
    """A client's calls."""
    return Api(interchange, interchange.create_client("alice"))


@pytest.fixture(scope="session")
def bob(interchange):
    """Another client's calls."""
    return Api(interchange, interchange.create_client("bob"))


@pytest.fixture
def speak():
    """Connects to the broker as the endpoint of a registration."""
    made = []

    def get(registration):
        made.append(Speaker(registration))
        return made[-1]

    yield get
    for speaker in made:
        speaker.close()


@pytest.fixture
def somebody():
    """An id that nothing has."""
    return str(uuid.uuid4())
