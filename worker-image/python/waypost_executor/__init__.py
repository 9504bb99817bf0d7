"""Runs Globus Compute tasks: unpack, call, pack.

The worker's supervisor gives this package to the Python that has ``globus-compute-sdk``; nothing is installed. It
needs the standard library and the SDK (2.16 or later), and Python 3.8 or later.

``warm``      a process of one thread that has imported what unpacking needs, and forks executors
``executor``  one of those: reads a task, runs it, writes its result, until its channel is closed
``contract``  what Globus Compute promises to a task, and what it puts into a result
``plain``     packs and unpacks plain data faster than the SDK, to the same bytes
``package``   loads the SDK's serializer without the rest of the SDK
``timeout``   raises ``AppTimeout`` in a task that runs too long
``strays``    ends the processes that a task leaves running
``native``    the two system calls that Python lacks
"""
