"""A server for the fetcher's tests: each connection gets the bytes that a test says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

Answer = Callable[[socket.socket, bytes], None]
"""``(connection, request head)``: sends what it likes; the connection is closed afterwards."""


class Server:
    """Listens on loopback, and keeps the heads of the requests it got."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._tls = tls
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> threading.Event:
        """Set when the test is over; answers that wait, wait for this."""
        return self._stopped

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # The client may hang up at any moment: that is what some tests are about.
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(4096)
                if not received:
                    return
                head += received
            self.requests.append(head)
            self._answer(connection, head)
            connection.close()

    def close(self) -> None:
        self._stopped.set()
        # A listener that is only closed may leave its accept() waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that stop with the test: ``serve(bytes)`` or ``serve(answer)``."""
    servers: list[Server] = []

    def start(answer: Answer | bytes, tls: ssl.SSLContext | None = None) -> Server:
        if isinstance(answer, bytes):
            fixed = answer
            server = Server(lambda connection, head: connection.sendall(fixed), tls)
        else:
            server = Server(answer, tls)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
