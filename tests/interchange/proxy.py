"""Between an interchange and its broker: can hold the broker's confirms back, and cut the connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

METHOD_FRAME = 1
CONFIRMS = {(60, 80), (60, 120)}
"""Class and method of `basic.ack` and `basic.nack`, which a broker sends to publishers only."""


class ConfirmProxy:
    """Forwards connections to a broker on this machine. All but confirms passes at any time, heartbeats too."""

    def __init__(self, broker_port: int):
        self.broker_port = broker_port
        self.held = 0
        self._holding = False
        self._waiting: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on confirms wait here."""
        with self._lock:
            self._holding = True

    def release(self) -> None:
        """Sends what was held, and holds no more."""
        with self._lock:
            self._holding = False
            for client, frame in self._waiting:
                client.sendall(frame)
            self._waiting.clear()

    def cut(self) -> None:
        """Ends every connection with all that is held, and holds no more. New connections are forwarded again."""
        with self._lock:
            self._holding = False
            self._waiting.clear()
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends all."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self.broker_port))
                with self._lock:
                    self._sockets += [client, broker]
                threading.Thread(target=self._to_broker, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._to_client, args=(broker, client), daemon=True).start()

    def _to_broker(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                broker.sendall(data)
        self._end(client, broker)

    def _to_client(self, broker: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            stream = broker.makefile("rb")
            while len(head := stream.read(7)) == 7:
                kind, _, size = struct.unpack(">BHI", head)
                rest = stream.read(size + 1)
                is_confirm = kind == METHOD_FRAME and struct.unpack(">HH", rest[:4]) in CONFIRMS
                with self._lock:
                    if is_confirm and self._holding:
                        self._waiting.append((client, head + rest))
                        self.held += 1
                    else:
                        client.sendall(head + rest)
        self._end(client, broker)

    @staticmethod
    def _end(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
