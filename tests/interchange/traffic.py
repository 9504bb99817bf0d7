"""Tasks that are submitted, run and answered on and on, whatever becomes of interchange and broker meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

from interchange.calls import Speaker, connect, result_body


class Worker(threading.Thread):
    """An endpoint that answers every task with the task's own arguments, until it is stopped; it outlives its broker."""

    def __init__(self, registration):
        super().__init__(daemon=True)
        self.registration = registration
        self.stopping = False
        self.ran = Counter()
        self.start()

    def run(self):
        while not self.stopping:
            try:
                self.work(Speaker(self.registration))
            except Exception:
                time.sleep(0.1)

    def work(self, speaker):
        for method, properties, body in speaker.channel.consume(speaker.queue, inactivity_timeout=0.1):
            if self.stopping:
                break
            if method is None:
                continue
            task = properties.headers["task_uuid"]
            payload = json.loads(body[1:])["data"]["task_buffer"].removeprefix("4\n01\nc")
            speaker.publish("result", result_body(task, payload))
            speaker.channel.basic_ack(method.delivery_tag)
            self.ran[task] += 1
        speaker.close()

    def stop(self):
        self.stopping = True
        self.join(10)


def submit_through(api, endpoint, function, group, payload):
    """Submits one task as the SDK does, which tries a call again that broke off; gives the id of the task that was
    accepted."""
    body = {"tasks": {function: [payload]}, "create_queue": True}
    if group:
        body["task_group_id"] = group
    while True:
        try:
            status, answer = api.call("POST", f"/v3/endpoints/{endpoint}/submit", body)
        except OSError:
            time.sleep(0.05)
            continue
        if status == 503:
            time.sleep(0.05)
            continue
        assert status == 200, answer
        return answer["tasks"][function][0], answer["task_group_id"]


class Results(threading.Thread):
    """Reads a task group's results as they come."""

    def __init__(self, url, queue):
        super().__init__(daemon=True)
        self.url, self.queue = url, queue
        self.got = {}
        self.copies = Counter()
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            try:
                connection = connect(self.url)
                for method, _, body in connection.channel().consume(self.queue, auto_ack=True, inactivity_timeout=0.1):
                    if self.stopping:
                        break
                    if method is None:
                        continue
                    result = json.loads(body[1:])["data"]
                    self.got.setdefault(result["task_id"], result["data"])
                    self.copies[result["task_id"]] += 1
                connection.close()
            except Exception:
                time.sleep(0.1)

    def stop(self):
        self.stopping = True
        self.join(10)
