"""Broker users: brought back when somebody meddled with them, and ended with their client."""

from __future__ import annotations

import json
import subprocess

import pytest
from interchange.calls import Api, connect, eventually, sql, token


def make_older(interchange):
    """As if every broker user had been made long ago: those of a moment ago are taken for good."""
    sql(
        interchange,
        *[f"UPDATE {table} SET broker_user_at = 1 WHERE broker_user_at > 0" for table in ("clients", "endpoints")],
    )


def overwrite(broker, url):
    """Gives the user of an AMQP address another password."""
    from urllib.parse import urlsplit

    broker.api("PUT", f"/api/users/{urlsplit(url).username}", {"password": "overwritten", "tags": ""})
    with pytest.raises(Exception, match="ACCESS_REFUSED|Authentication"):
        connect(url)


@pytest.mark.parametrize("what", ["overwritten", "removed"])
def test_a_user_endpoints_broker_user_is_brought_back_when_it_is_started(interchange, alice, speak, broker, what):
    registration, function = alice.endpoint("template"), alice.function()
    alice.submit(registration["endpoint_id"], function)
    speaker = speak(registration)
    ((_, body),) = speaker.tasks(1)
    credentials = json.loads(body)["kwargs"]["amqp_creds"]
    url = credentials["task_queue_info"]["connection_url"]
    if what == "overwritten":
        overwrite(broker, url)
    else:
        broker.api("DELETE", f"/api/users/waypost.endpoint.{credentials['endpoint_id']}")
    make_older(interchange)
    alice.submit(registration["endpoint_id"], function)
    speaker.tasks(1)
    assert len(speak(credentials).tasks(2)) == 2


def test_a_clients_broker_password_is_brought_back_when_it_asks_where_its_results_are(interchange, alice, broker):
    url = alice.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"]
    overwrite(broker, url)
    make_older(interchange)
    assert alice.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"] == url
    connect(url).close()


def is_cut(connection):
    """Whether the broker has closed it."""
    try:
        connection.process_data_events(0)
    except Exception:
        return True
    return not connection.is_open


def revoke(interchange, client, without=""):
    """Revokes a client with one variable left out of the environment; gives what is printed."""
    environment = {name: value for name, value in interchange._environment().items() if name != without}
    command = [interchange.binary, "client", "revoke", client.id]
    return subprocess.run(command, env=environment, check=True, timeout=30, capture_output=True, text=True).stdout


def test_a_revoked_client_can_do_nothing_any_more_at_once(make_interchange, speak):
    """No round of cleaning up has to come for it."""
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_HOUSEKEEPING_PERIOD": "3600"})
    gone, stays = (Api(interchange, interchange.create_client(name)) for name in ("gone", "stays"))
    connections = [gone.result_queue("x")[0], speak(gone.endpoint()).connection]
    other = stays.result_queue("x")[0]
    assert "removed 2 users" in revoke(interchange, gone)
    assert gone.call("GET", "/v2/endpoints")[0] == 401
    assert token(interchange, gone.client)[0] == 401
    eventually(lambda: all(map(is_cut, connections)), "the broker closes its connections", 10)
    assert not is_cut(other)
    other.close()
    listed = subprocess.run(
        [interchange.binary, "client", "list"],
        env=interchange._environment(),
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    ).stdout
    assert [line for line in listed.splitlines() if gone.id in line and "revoked" in line]


def test_what_a_revoking_process_can_not_do_a_running_interchange_does(make_interchange):
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_HOUSEKEEPING_PERIOD": "1"})
    gone = Api(interchange, interchange.create_client("gone"))
    connection, _ = gone.result_queue("x")
    told = revoke(interchange, gone, without="WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL")
    assert "next round of cleaning up" in told
    eventually(lambda: is_cut(connection), "the broker closes the connection", 30)
