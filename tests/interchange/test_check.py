"""`interchange check`, which `helm test` runs: it goes a client's way, says what does not work, and leaves nothing."""

from __future__ import annotations

import contextlib

import pytest
from harness import ports
from interchange.calls import sql

FOUND = (
    "is ready: it has its database and its broker",
    "a client can log in",
    "functions are kept",
    "a client can connect to the broker",
)


@pytest.fixture(scope="module")
def interchange(make_interchange):
    """One that nobody else uses: what is in its tables is counted."""
    return make_interchange()


@contextlib.contextmanager
def nothing_left(interchange):
    """Asserts that there is no more in the tables, and no other user at the broker, than before."""

    def rows():
        tables = ("clients", "functions", "tokens")
        return sql(interchange, f"SELECT {', '.join(f'(SELECT count(*) FROM {table})' for table in tables)}")

    before, users = rows(), interchange.broker.users()
    yield
    assert rows() == before
    # Those of other tests may go meanwhile.
    assert interchange.broker.users() <= users


def test_an_interchange_that_works_is_found_to_and_nothing_is_left(interchange):
    with nothing_left(interchange):
        lines = interchange.command("check", "--url", interchange.url).splitlines()
    assert len(lines) == len(FOUND), lines
    for line, words in zip(lines, FOUND, strict=True):
        assert line.endswith(words), lines


def test_a_broker_that_clients_do_not_reach_is_named(make_interchange):
    port = ports.free_port()
    address = f"amqp://127.0.0.1:{port}/%2F"
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_BROKER_PUBLIC_URL": address})
    with nothing_left(interchange), pytest.raises(RuntimeError) as refused:
        interchange.command("check", "--url", interchange.url)
    assert f"a client can't connect to the broker at 127.0.0.1:{port}" in str(refused.value)
    assert "set --broker-public-url to an address that they reach" in str(refused.value)


def test_an_interchange_that_is_not_there_is_named(interchange):
    url = f"http://127.0.0.1:{ports.free_port()}"
    with (
        nothing_left(interchange),
        pytest.raises(RuntimeError, match=f"the interchange is not ready: there is no answer from {url}"),
    ):
        interchange.command("check", "--url", url)


def test_an_interchange_of_another_database_is_not_taken_for_the_right_one(interchange, make_interchange):
    other = make_interchange()
    with nothing_left(interchange), pytest.raises(RuntimeError, match="a client can't log in: 401"):
        interchange.command("check", "--url", other.url)
