"""One HTTP GET to a pinned address, under a deadline and a size limit."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mmcore.errors import MediaFetchError
from mmcore.multimodal.address import HttpUrl

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Deadline", "Dial", "HttpReply", "get"]

_CHUNK = 64 * 1024

Dial = Callable[[str, int, float], socket.socket]
"""``(address, port, timeout)`` -> a connected socket."""


class Deadline:
    """When a fetch must be over, and a way to end it before.

    Thread-safe: one thread works under it, any other may :meth:`cancel`.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cancelled = False

    def remaining(self) -> float:
        """Give the seconds that are left.

        Raises
        ------
        MediaFetchError
            If none are, or the fetch was cancelled.
        """
        if self._cancelled:
            raise MediaFetchError("The fetch was cancelled.", code="request_aborted")
        left = self._end - time.monotonic()
        if left <= 0:
            raise timed_out()
        return left

    def watch(self, sock: socket.socket | None) -> None:
        """Name the socket that :meth:`cancel` has to wake."""
        with self._lock:
            self._socket = sock
        self.remaining()

    def cancel(self) -> None:
        """End the fetch now; a blocked read returns at once."""
        with self._lock:
            self._cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it may be closed already
                    self._socket.shutdown(socket.SHUT_RDWR)


def timed_out() -> MediaFetchError:
    """Make the error for a fetch that took too long."""
    return MediaFetchError(
        "Fetching the media took too long; the server is too slow or does not answer.",
        code="media_fetch_timeout",
    )


def failed(reason: str) -> MediaFetchError:
    """Make the error for a fetch that the server or the network failed."""
    return MediaFetchError(f"The media could not be fetched: {reason}", code="media_fetch_failed")


def dial(address: str, port: int, timeout: float) -> socket.socket:
    """Connect to an address, without resolving anything."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Reader(io.RawIOBase):
    """Reads a socket, with every read under the deadline: a server cannot win time by drips."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._sock.settimeout(self._deadline.remaining())
        return self._sock.recv_into(buffer)


class _Socket:
    """The part of a socket's interface that http.client uses."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.remaining())
        self._sock.sendall(data)

    def makefile(self, mode: str, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline), _CHUNK)

    def close(self) -> None:
        """Do nothing: http.client closes once the head is read, and the body comes after it.

        :func:`get` closes the socket.
        """


class HttpReply:
    """Status, headers and, for a 200, the body of an answer.

    Parameters
    ----------
    location
        Where a redirect points; None for other answers.
    """

    __slots__ = ("body", "content_type", "location", "status")

    def __init__(self, status: int, location: str | None, content_type: str, body: bytes) -> None:
        self.status = status
        self.location = location
        self.content_type = content_type
        self.body = body


def get(
    url: HttpUrl,
    address: str,
    *,
    deadline: Deadline,
    connect_timeout: float,
    max_bytes: int,
    tls: ssl.SSLContext | None = None,
    connect: Dial = dial,
) -> HttpReply:
    """Send one GET; redirects are returned, not followed.

    Parameters
    ----------
    url
        Gives the Host header, the name that the certificate must have, and the target.
    address
        What is dialled. Nothing is resolved here.
    max_bytes
        Longest body. A longer one is refused by its header, or after this many bytes.

    Raises
    ------
    MediaFetchError
        ``media_fetch_timeout``, ``media_fetch_failed`` or ``media_too_large``.
    """
    sock: socket.socket | None = None
    try:
        sock = connect(address, url.port, min(connect_timeout, deadline.remaining()))
        deadline.watch(sock)
        if url.scheme == "https":
            context = ssl.create_default_context() if tls is None else tls
            sock.settimeout(deadline.remaining())
            sock = context.wrap_socket(sock, server_hostname=url.host)
            deadline.watch(sock)
        connection = http.client.HTTPConnection(url.host, url.port)
        connection.sock = _Socket(sock, deadline)
        # An answer in the clear: the limit then counts what is decoded, and there are no bombs.
        connection.putrequest("GET", url.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", url.authority)
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "mmcore")
        connection.putheader("Connection", "close")
        connection.endheaders()
        return _read_reply(connection.getresponse(), max_bytes)
    except MediaFetchError:
        raise
    except TimeoutError:
        raise timed_out() from None
    except ssl.SSLError:
        deadline.remaining()
        raise failed("the server's certificate or TLS set-up is not acceptable.") from None
    except (OSError, http.client.HTTPException, ValueError):
        deadline.remaining()
        raise failed("the connection failed or the answer is not HTTP.") from None
    finally:
        if sock is not None:
            sock.close()


def _read_reply(response: http.client.HTTPResponse, max_bytes: int) -> HttpReply:
    location = response.getheader("Location")
    content_type = response.getheader("Content-Type") or ""
    if response.status in (301, 302, 303, 307, 308):
        return HttpReply(response.status, location, content_type, b"")
    if response.status != 200:
        raise failed(f"the server answered with status {response.status}.")
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise failed("the server compressed the answer, which was not asked for.")
    expected = response.length
    if expected is not None and expected > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    while chunk := response.read1(min(_CHUNK, max_bytes + 1 - len(body))):
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)
    if expected is not None and len(body) != expected:
        raise failed("the connection ended before the whole file had arrived.")
    return HttpReply(200, None, content_type, bytes(body))


def too_large(max_bytes: int) -> MediaFetchError:
    """Make the error for media over the size limit."""
    return MediaFetchError(
        f"The media file is larger than the {max_bytes} bytes that are allowed.",
        code="media_too_large",
    )
