"""Prints one task as the SDK and the service would put it on an endpoint's queue. Run by a Python that has the SDK."""

import json
import sys

from globus_compute_sdk.serialize import ComputeSerializer


def double(number):
    return 2 * number


def main() -> None:
    serializer = ComputeSerializer()
    function = serializer.pack_buffers([serializer.serialize(double)])
    arguments = serializer.pack_buffers([serializer.serialize((21,)), serializer.serialize({})])
    task = {"task_id": sys.argv[1], "container_id": None, "container": None, "task_buffer": function + arguments}
    message = json.dumps({"message_type": "task", "data": task}).encode()
    sys.stdout.buffer.write(b"\x01" + message)


main()
