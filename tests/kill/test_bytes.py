"""What the agent holds is bounded in bytes."""

from __future__ import annotations

import pytest
from harness import processes
from harness.endpoint import engine_block, wait_for
from harness.functions import payload, size_of

WAIT = 400
MEBIBYTE = 1024 * 1024


@pytest.mark.timeout(600)
def test_four_hundred_tasks_of_five_megabytes_pass_an_agent_of_300_mebibytes(make_endpoint, interchange, client):
    """The data segment is limited, so an agent that takes more is refused memory and dies."""
    from globus_compute_sdk import Executor

    limit = ["prlimit", f"--data={300 * MEBIBYTE}"]
    endpoint = make_endpoint(interchange, client, "direct", wait=False, prefix=limit, engine=engine_block(slots=2))
    endpoint.wait_online()
    # 32 arguments of five megabytes are one call of at most 256 MiB.
    executor = Executor(endpoint_id=endpoint.id, batch_size=32, api_burst_limit=8, api_burst_window_s=1)
    try:
        argument = b"z" * 5_000_000
        futures = [executor.submit(size_of, argument) for _ in range(400)]
        large = [executor.submit(payload, 5_000_000) for _ in range(80)]
        assert [future.result(WAIT) for future in futures] == [5_000_000] * 400
        assert [len(future.result(WAIT)) for future in large] == [5_000_000] * 80
        assert endpoint.process.running
        peak = processes.peak_memory(endpoint.process.pid)
        assert peak < 300 * MEBIBYTE, f"the agent took {peak / MEBIBYTE:.0f} MiB"
        print(f"peak {peak / MEBIBYTE:.0f} MiB")
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    wait_for(lambda: endpoint.status()["state"], "its status")
