"""The interchange dies, and every future gets its own result, once."""

from __future__ import annotations

import random
import time

import pytest
from harness.functions import double

WAIT = 180


@pytest.mark.parametrize("seed", range(3))
def test_every_task_submitted_around_kills_of_the_interchange_gets_its_result(endpoint, executor, interchange, seed):
    """SIGKILL at random moments while 200 tasks are submitted and run. A submit whose answer was lost fails at the
    client, as it must: the client can't know. All that were accepted get their own result."""
    dice = random.Random(seed)
    executor.submit(double, 1).result(WAIT)
    futures = []
    for number in range(200):
        futures.append((number, executor.submit(double, number)))
        if number % 50 == 25:
            time.sleep(dice.uniform(0.0, 1.0))
            interchange.kill()
            interchange.start()
    refused = 0
    for number, future in futures:
        try:
            assert future.result(WAIT) == 2 * number
        except AssertionError:
            raise
        except Exception as error:
            if future.task_id:
                raise
            refused += 1
            print(f"the submit of task {number} failed: {error}")
    assert refused < 200
