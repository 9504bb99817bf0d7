"""The disk with the database is full: what can't be accepted is refused in so many words, and nothing is lost."""

from __future__ import annotations

import pytest
from harness import http
from harness.small_disk import SmallDisk
from interchange.calls import Api, eventually, metric, result_body

LARGE = "4\n00\n" + "x" * 3_000_000


@pytest.fixture
def disk(keeper):
    disk = SmallDisk(keeper, "full-disk", 48)
    yield disk
    disk.end()


def test_a_full_disk_refuses_submits_and_keeps_results_until_there_is_room(make_interchange, disk, speak):
    interchange = make_interchange(database=f"sqlite://{disk.folder}/interchange.db")
    api = Api(interchange, interchange.create_client("full"))
    registration, function = api.endpoint(), api.function()
    speaker = speak(registration)
    submit = f"/v3/endpoints/{speaker.id}/submit"
    submitted = api.submit(speaker.id, function)
    (task,) = submitted["tasks"][function]
    speaker.tasks(1)
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty")

    disk.fill()
    status, answer = api.call("POST", submit, {"tasks": {function: [LARGE]}, "create_queue": True})
    assert (status, answer["code"]) == (503, "SERVICE_UNAVAILABLE"), answer
    assert "disk" in answer["message"] and "full" in answer["message"], answer
    speaker.publish("result", result_body(task, LARGE))
    eventually(lambda: "can't be stored" in interchange.process.log.read_text(), "it says that results can't be stored")
    assert api.done("GET", f"/v2/tasks/{task}")["status"] == "waiting-for-ep", "what is stored can be read"
    assert http.call("GET", f"{interchange.url}/livez")[0] == 200
    assert interchange.process.running

    disk.make_room()
    eventually(lambda: api.done("GET", f"/v2/tasks/{task}").get("result") == LARGE, "the result is there", 60)
    later = api.done("POST", submit, {"tasks": {function: [LARGE]}, "create_queue": True})
    (properties, _), *more = speaker.tasks(1)
    assert properties.headers["task_uuid"] == later["tasks"][function][0] and not more
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "nothing else was accepted")
    assert speaker.channel.queue_declare(speaker.queue, passive=True).method.message_count == 0


def test_tasks_accepted_just_before_the_disk_was_full_are_run(make_interchange, disk, speak):
    """The broker confirms them, and that they need not be published again can't be written: they are not, for as long as
    the process lives."""
    interchange = make_interchange(database=f"sqlite://{disk.folder}/interchange.db")
    api = Api(interchange, interchange.create_client("full"))
    registration, function = api.endpoint(), api.function()
    speaker = speak(registration)
    accepted = []
    for megabytes in range(1, 10):
        body = {"tasks": {function: ["4\n00\n" + "x" * 1_000_000 * megabytes]}, "create_queue": True}
        status, answer = api.call("POST", f"/v3/endpoints/{speaker.id}/submit", body)
        if status != 200:
            break
        accepted += answer["tasks"][function]
        # Each is larger than the one before, so that the room which that one gave back is not enough for it.
        disk.fill(all_but=1_500_000)
    assert accepted and status == 503, "the disk was to be full after a few"
    got = [properties.headers["task_uuid"] for properties, _ in speaker.tasks(len(accepted))]
    disk.make_room()
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty", 60)
    assert sorted(got) == sorted(accepted)
    assert speaker.channel.queue_declare(speaker.queue, passive=True).method.message_count == 0
