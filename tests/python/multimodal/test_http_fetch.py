"""Unit: one GET against servers that answer well, badly, slowly or not at all."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import MediaFetchError
from mmcore.multimodal.address import HttpUrl
from mmcore.multimodal.http_fetch import Deadline, HttpReply, dial, get

OK = b"HTTP/1.1 200 OK\r\n"
Serve = Callable[..., Any]


def fetch(
    port: int,
    *,
    seconds: float = 5.0,
    max_bytes: int = 1000,
    scheme: str = "http",
    deadline: Deadline | None = None,
    **kwargs: Any,
) -> HttpReply:
    return get(
        HttpUrl(scheme, "media.example", port, "/a.png?x=1"),
        "127.0.0.1",
        deadline=deadline or Deadline(seconds),
        connect_timeout=2.0,
        max_bytes=max_bytes,
        **kwargs,
    )


def refusal(port: int, **kwargs: Any) -> MediaFetchError:
    with pytest.raises(MediaFetchError) as caught:
        fetch(port, **kwargs)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


def test_body_and_what_is_sent(serve: Serve) -> None:
    server = serve(OK + b"Content-Length: 3\r\nContent-Type: image/png\r\n\r\nabc")
    reply = fetch(server.port)
    assert (reply.status, reply.body, reply.content_type) == (200, b"abc", "image/png")
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /a.png?x=1 HTTP/1.1"
    assert f"Host: media.example:{server.port}" in lines
    assert "Accept-Encoding: identity" in lines


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        OK + b"Content-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc and more",
    ],
)
def test_other_framings(serve: Serve, answer: bytes) -> None:
    assert fetch(serve(answer).port).body == b"abc"


@pytest.mark.parametrize("head", [b"", b"Content-Length: 300000\r\n", b"Connection: close\r\n"])
def test_bodies_longer_than_a_buffer(serve: Serve, head: bytes) -> None:
    body = bytes(range(250)) * 1200
    reply = fetch(serve(OK + head + b"\r\n" + body).port, max_bytes=len(body))
    assert reply.body == body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_returned(serve: Serve, status: int) -> None:
    answer = f"HTTP/1.1 {status} X\r\nLocation: /b\r\nContent-Length: 999999\r\n\r\n".encode()
    reply = fetch(serve(answer).port)
    assert (reply.status, reply.location, reply.body) == (status, "/b", b"")


@pytest.mark.parametrize("status", [204, 206, 304, 400, 404, 500, 503])
def test_other_statuses(serve: Serve, status: int) -> None:
    server = serve(f"HTTP/1.1 {status} X\r\nContent-Length: 6\r\n\r\nsecret".encode())
    error = refusal(server.port)
    assert error.code == "media_fetch_failed"
    assert str(status) in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 200 + b"\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Encoding: br\r\n\r\nabc",
    ],
    ids=range(10),
)
def test_answers_that_cannot_be_used(serve: Serve, answer: bytes) -> None:
    assert refusal(serve(answer).port).code == "media_fetch_failed"


def test_length_is_judged_by_the_header(serve: Serve) -> None:
    assert fetch(serve(OK + b"Content-Length: 5\r\n\r\nabcde").port, max_bytes=5).body == b"abcde"
    error = refusal(serve(OK + b"Content-Length: 6\r\n\r\n").port, max_bytes=5)
    assert error.code == "media_too_large"


@pytest.mark.parametrize("chunked", [False, True])
def test_endless_bodies_are_cut(serve: Serve, chunked: bool) -> None:
    sent = 0
    hung_up = threading.Event()

    def answer(connection: socket.socket, head: bytes) -> None:
        nonlocal sent
        connection.sendall(OK + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        piece = b"400\r\n" + b"a" * 1024 + b"\r\n" if chunked else b"a" * 1024
        try:
            while True:
                connection.sendall(piece)
                sent += 1024
        finally:
            hung_up.set()

    error = refusal(serve(answer).port, max_bytes=10_000)
    assert error.code == "media_too_large"
    assert hung_up.wait(5)
    # The rest of what was sent is in the buffers of the two sockets.
    assert sent < 64 * 1024 * 1024


@pytest.mark.parametrize("first", [b"", OK[:5], OK + b"X: ", OK + b"Content-Length: 9\r\n\r\na"])
def test_silence(serve: Serve, first: bytes) -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(first)
        server.stopped.wait()

    server = serve(answer)
    assert refusal(server.port, seconds=0.2).code == "media_fetch_timeout"


@pytest.mark.parametrize("first", [b"", OK + b"Content-Length: 999\r\n\r\n"])
def test_drips_do_not_extend_the_deadline(serve: Serve, first: bytes) -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(first)
        while not server.stopped.wait(0.02):
            connection.sendall(b"a")

    server = serve(answer)
    assert refusal(server.port, seconds=0.2).code == "media_fetch_timeout"


def test_a_deadline_that_has_passed(serve: Serve) -> None:
    server = serve(OK + b"Content-Length: 0\r\n\r\n")
    assert refusal(server.port, seconds=0.0).code == "media_fetch_timeout"
    assert server.connections == 0


def test_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refusal(port).code == "media_fetch_failed"


def test_cancelling_wakes_a_waiting_fetch(serve: Serve) -> None:
    waiting = threading.Event()

    def answer(connection: socket.socket, head: bytes) -> None:
        waiting.set()
        server.stopped.wait()

    server = serve(answer)
    deadline = Deadline(60.0)
    threading.Thread(target=lambda: waiting.wait(10) and deadline.cancel()).start()
    error = refusal(server.port, deadline=deadline)
    assert error.code == "request_aborted"


def test_cancelling_before_the_start(serve: Serve) -> None:
    server = serve(b"")
    deadline = Deadline(60.0)
    deadline.cancel()
    assert refusal(server.port, deadline=deadline).code == "request_aborted"
    assert server.connections == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -subj /CN=media.example -addext subjectAltName=DNS:media.example"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return cert, key


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_tls_asks_for_the_name_not_the_address(
    serve: Serve, certificate: tuple[Path, Path]
) -> None:
    names: list[str | None] = []
    context = server_tls(certificate)
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    server = serve(OK + b"Content-Length: 2\r\n\r\nok", context)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    assert fetch(server.port, scheme="https", tls=trusted).body == b"ok"
    assert names == ["media.example"]


def test_certificates_are_checked(serve: Serve, certificate: tuple[Path, Path]) -> None:
    server = serve(OK + b"Content-Length: 2\r\n\r\nok", server_tls(certificate))
    error = refusal(server.port, scheme="https")
    assert error.code == "media_fetch_failed"
    assert "certificate" in str(error)

    other = ssl.create_default_context(cafile=str(certificate[0]))
    with pytest.raises(MediaFetchError, match="certificate"):
        get(
            HttpUrl("https", "other.example", server.port, "/"),
            "127.0.0.1",
            deadline=Deadline(5.0),
            connect_timeout=2.0,
            max_bytes=10,
            tls=other,
        )
    assert server.requests == []


def test_silence_instead_of_tls(serve: Serve) -> None:
    server = serve(lambda connection, head: None)
    assert refusal(server.port, scheme="https", seconds=0.3).code == "media_fetch_timeout"


def test_dialling_needs_no_resolver(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    def no_resolver(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was resolved")

    monkeypatch.setattr(socket, "getaddrinfo", no_resolver)
    server = serve(b"")
    dial("127.0.0.1", server.port, 2.0).close()
