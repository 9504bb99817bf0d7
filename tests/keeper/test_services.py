"""The private services: they come up, keep what is durable over a restart, and leave nothing."""

from __future__ import annotations

from pathlib import Path

from harness.rabbitmq import RabbitMQ


def test_a_broker_keeps_its_durable_queues_over_a_stop_and_a_kill(keeper):
    before = {seen.pid for seen in keeper.descendants()}
    node = RabbitMQ(keeper, name="restarted").start()
    node.create_virtual_host("kept")
    node.api("PUT", "/api/queues/kept/a-queue", {"durable": True})
    node.stop()
    node.start()
    assert "a-queue" in node.queues("kept")
    node.kill()
    node.start()
    assert "a-queue" in node.queues("kept")
    node.end()
    assert {seen.pid for seen in keeper.descendants()} <= before
    assert not Path(node.folder).exists()


def test_a_database_server_gives_databases_of_their_own(database, postgresql):
    first, second = database(), database()
    assert first != second
    name = first.rpartition("/")[2]
    postgresql.query("CREATE TABLE numbers (n integer); INSERT INTO numbers VALUES (7)", name)
    assert postgresql.query("SELECT n FROM numbers", name) == [["7"]]
