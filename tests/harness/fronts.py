"""What stands between a client and a service at a site: a front that ends TLS, and a proxy that leads outside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Mapping

from harness.certificates import Certificate
from harness.interchange import LOCAL

GLOBUS = ("compute.api.globus.org", "auth.globus.org")
"""Where unmodified clients look for the services, unless told otherwise."""

_HEAD_BYTES_MAX = 65536


class _Server:
    """Serves connections on a port of its own, in a thread of its own, until it is closed."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._connected, LOCAL, 0, ssl=context, limit=_HEAD_BYTES_MAX)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(60)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Ends the listener and every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away is nobody's fault.
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Passes on what either side says to the other, until one has no more to say."""
    there_reader, there_writer = await asyncio.open_connection(LOCAL, port)
    ways = [
        asyncio.ensure_future(_copy(reader, there_writer)),
        asyncio.ensure_future(_copy(there_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        there_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class TlsFront(_Server):
    """Ends TLS in front of a service of this machine that speaks none itself."""

    def __init__(self, certificate: Certificate, service_port: int):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._service_port = service_port
        super().__init__(context)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _forward(reader, writer, self._service_port)


class ConnectProxy(_Server):
    """An HTTP proxy that makes tunnels by CONNECT and does nothing else. `hosts` says which port of this machine a name
    stands for; other names stand for this machine's own ports. `user`, a name and a password, has to be named by clients
    if it is given."""

    def __init__(self, hosts: Mapping[str, int] | None = None, user: tuple[str, str] | None = None):
        self._hosts = dict(hosts or {})
        self._user = user
        self.tunnels: Counter[str] = Counter()
        """How many tunnels there were to each `host:port`."""
        self.refused = 0
        """How many requests were none for a tunnel, or did not name the user."""
        super().__init__()

    @property
    def url(self) -> str:
        user = f"{self._user[0]}:{self._user[1]}@" if self._user else ""
        return f"http://{user}{LOCAL}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if method != "CONNECT":
            self.refused += 1
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        if self._user:
            pair = base64.b64encode(":".join(self._user).encode()).decode()
            if headers.get("proxy-authorization") != f"Basic {pair}":
                self.refused += 1
                writer.write(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
                await writer.drain()
                return
        host, _, port = target.rpartition(":")
        self.tunnels[target] += 1
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _forward(reader, writer, self._hosts.get(host, int(port)))
