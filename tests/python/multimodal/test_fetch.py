"""Unit: the fetcher as a whole: schemes, policies, redirects, pinning and limits."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import MediaError, MediaFetchError
from mmcore.multimodal.fetch import FetchPolicy, MediaFetcher

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[..., Any]


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class Network:
    """Stands for the internet: names have the addresses given, and all lead to one server."""

    def __init__(self, port: int, **names: Sequence[str]) -> None:
        self.port = port
        self.names = {name.replace("_", "."): list(found) for name, found in names.items()}
        self.resolved: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror("no such name")
        return self.names[host]

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        self.dialled.append((address, port))
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def fetcher(self, **policy: Any) -> MediaFetcher:
        return MediaFetcher(FetchPolicy(**policy), resolve=self.resolve, connect=self.connect)


def refusal(fetcher: MediaFetcher, url: Any, **kwargs: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        fetcher.fetch(url, **kwargs)
    return caught.value


def test_the_address_that_was_judged_is_dialled(serve: Serve) -> None:
    network = Network(serve(OK).port, media_example=["93.184.216.34", "1.1.1.1"])
    assert network.fetcher().fetch("http://media.example/a.png") == b"ok"
    assert network.resolved == ["media.example"]
    assert network.dialled == [("93.184.216.34", 80)]


def test_rebinding_names_are_resolved_once(serve: Serve) -> None:
    network = Network(serve(OK).port)
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    fetcher = MediaFetcher(resolve=lambda host, port: next(answers), connect=network.connect)
    assert fetcher.fetch("http://media.example/") == b"ok"
    assert network.dialled == [("93.184.216.34", 80)]
    assert refusal(fetcher, "http://media.example/").code == "media_url_blocked"
    assert len(network.dialled) == 1


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%eth0"], ["169.254.169.254"]],
)
def test_private_addresses_are_never_dialled(serve: Serve, addresses: list[str]) -> None:
    network = Network(serve(OK).port, media_example=addresses)
    assert refusal(network.fetcher(), "http://media.example/").code == "media_url_blocked"
    assert network.dialled == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "2130706433", "127.1",
     "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0x7f000001", "0177.0.0.1"],
)  # fmt: skip
def test_the_own_machine_is_not_reached(serve: Serve, host: str) -> None:
    server = serve(OK)
    fetcher = MediaFetcher(FetchPolicy(allowed_ports=(server.port,)))
    assert refusal(fetcher, f"http://{host}:{server.port}/").code == "media_url_blocked"
    assert server.connections == 0


def test_networks_of_the_operator_are_reached(serve: Serve) -> None:
    server = serve(OK)
    policy = FetchPolicy(allowed_ports=(server.port,), allowed_private_networks=("127.0.0.0/8",))
    assert MediaFetcher(policy).fetch(f"http://127.0.0.1:{server.port}/") == b"ok"


def test_unknown_names(serve: Serve) -> None:
    network = Network(serve(OK).port)
    assert refusal(network.fetcher(), "http://media.example/").code == "media_fetch_failed"
    empty = MediaFetcher(resolve=lambda host, port: [], connect=network.connect)
    assert refusal(empty, "http://media.example/").code == "media_fetch_failed"
    assert network.dialled == []


def test_a_resolver_that_hangs() -> None:
    over = threading.Event()

    def resolve(host: str, port: int) -> Sequence[str]:
        over.wait()
        return []

    fetcher = MediaFetcher(FetchPolicy(total_timeout=0.1), resolve=resolve)
    assert refusal(fetcher, "http://media.example/").code == "media_fetch_timeout"
    over.set()


@pytest.mark.parametrize("error", [TimeoutError("slow"), UnicodeError("label too long")])
def test_a_resolver_that_fails(error: Exception) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise error

    assert refusal(MediaFetcher(resolve=resolve), "http://a.example/").code == "media_fetch_failed"


def test_redirects_are_followed(serve: Serve) -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        path = head.split()[1]
        connection.sendall(
            {
                b"/1": redirect("/2?x"),
                b"/2?x": redirect("//other.example/3"),
                b"/3": redirect("http://media.example:443/4"),
                b"/4": OK,
            }[path]
        )

    network = Network(
        serve(answer).port, media_example=["93.184.216.34"], other_example=["1.1.1.1"]
    )
    assert network.fetcher().fetch("http://media.example/1") == b"ok"
    assert network.dialled == [
        ("93.184.216.34", 80),
        ("93.184.216.34", 80),
        ("1.1.1.1", 80),
        ("93.184.216.34", 443),
    ]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://private.example/",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "ftp://media.example/",
        "http://media.example:22/",
        "http://user@media.example/",
        "//2130706433/",
        "https://",
    ],
)
def test_redirects_to_elsewhere_are_refused(serve: Serve, location: str) -> None:
    network = Network(
        serve(redirect(location)).port,
        media_example=["93.184.216.34"],
        private_example=["10.0.0.1"],
    )
    assert refusal(network.fetcher(), "http://media.example/").code == "media_url_blocked"
    assert network.dialled == [("93.184.216.34", 80)]


@pytest.mark.parametrize("limit", [0, 3])
def test_redirects_without_end(serve: Serve, limit: int) -> None:
    network = Network(serve(redirect("/again")).port, media_example=["93.184.216.34"])
    error = refusal(network.fetcher(max_redirects=limit), "http://media.example/")
    assert error.code == "media_fetch_failed"
    assert f"more than {limit} redirects" in str(error)
    assert len(network.dialled) == limit + 1


def test_a_redirect_to_nowhere(serve: Serve) -> None:
    network = Network(
        serve(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").port,
        media_example=["93.184.216.34"],
    )
    assert refusal(network.fetcher(), "http://media.example/").code == "media_fetch_failed"


def test_policies(serve: Serve) -> None:
    names = {"media_example": ["93.184.216.34"], "cdn_media_example": ["1.1.1.1"]}
    network = Network(serve(OK).port, **names, other_example=["1.1.1.1"])
    off = network.fetcher(media_urls="off")
    assert refusal(off, "http://media.example/").code == "media_url_blocked"
    listed = network.fetcher(media_urls="allowlist", allowed_domains=["media.example"])
    assert refusal(listed, "http://other.example/").code == "media_url_blocked"
    assert network.resolved == network.dialled == []
    assert listed.fetch("http://cdn.media.example/") == b"ok"
    assert off.fetch("data:image/png;base64,b2s=") == b"ok"


def test_an_allow_list_holds_for_redirects(serve: Serve) -> None:
    network = Network(
        serve(redirect("http://other.example/")).port,
        media_example=["93.184.216.34"],
        other_example=["1.1.1.1"],
    )
    listed = network.fetcher(media_urls="allowlist", allowed_domains=["media.example"])
    assert refusal(listed, "http://media.example/").code == "media_url_blocked"
    assert len(network.dialled) == 1


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_data_urls() -> None:
    fetcher = MediaFetcher()
    assert fetcher.fetch(data_url(b"any bytes")) == b"any bytes"
    assert fetcher.fetch("DATA:IMAGE/x;p=1;BASE64,b2s=") == b"ok"
    assert fetcher.fetch(data_url(b"sound", "audio/wav"), kind="audio") == b"sound"


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png,abcd",
        "data:image/png;base64,abc",
        "data:image/png;base64,ab cd",
        "data:image/png;base64,ab\ncd",
        "data:image/png;base64,ä",
        "data:image/png;base64,abcd=efg",
        "data:text/html;base64,b2s=",
        "data:;base64,b2s=",
    ],
)
def test_malformed_data_urls(url: str) -> None:
    error = refusal(MediaFetcher(), url)
    assert error.code == "invalid_image"


def test_size_of_data_urls() -> None:
    fetcher = MediaFetcher(FetchPolicy(max_bytes=10))
    assert fetcher.fetch(data_url(b"x" * 10)) == b"x" * 10
    for size in (11, 12, 13, 1000):
        assert refusal(fetcher, data_url(b"x" * size)).code == "media_too_large"


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "gopher://a", "javascript:1", "blob:x", "s3://b/k", "//a/b", "", "a.png"]
)
@pytest.mark.parametrize("kind", ["image", "audio"])
def test_other_schemes(url: str, kind: str) -> None:
    error = refusal(MediaFetcher(), url, kind=kind)
    assert isinstance(error, MediaFetchError)
    assert str(error) == (
        f"Invalid '{kind}_url': A valid '{kind}_url' must start with either 'data:{kind}' or "
        "'http'."
    )


@pytest.mark.parametrize("url", [None, 5, b"http://a.example/", ["http://a.example/"]])
def test_what_is_no_url(url: Any) -> None:
    assert "must be a string" in str(refusal(MediaFetcher(), url))


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"file")
    url = f"file://{tmp_path}/a.png"
    assert refusal(MediaFetcher(), url).code == "media_url_blocked"
    allowed = MediaFetcher(FetchPolicy(allowed_local_media_path=str(tmp_path), max_bytes=4))
    assert allowed.fetch(url) == b"file"
    assert refusal(allowed, f"file://{tmp_path}/../etc/passwd").code == "media_url_blocked"


@pytest.mark.parametrize(
    "policy",
    [
        {"media_urls": "everything"},
        {"media_urls": "allowlist"},
        {"connect_timeout": 0},
        {"total_timeout": -1},
        {"max_bytes": 0},
        {"max_concurrent": 0},
        {"max_redirects": -1},
        {"allowed_private_networks": ["local"]},
        {"allowed_local_media_path": "/no/such/folder"},
    ],
    ids=str,
)
def test_policies_are_checked(policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        FetchPolicy(**policy)


def test_fetching_beside_an_event_loop(serve: Serve) -> None:
    network = Network(serve(OK).port, media_example=["93.184.216.34"])
    fetcher = network.fetcher()

    async def several() -> list[bytes]:
        return await asyncio.gather(
            *(fetcher.fetch_async(f"http://media.example/{i}") for i in range(5))
        )

    assert asyncio.run(several()) == [b"ok"] * 5


def test_errors_beside_an_event_loop() -> None:
    with pytest.raises(MediaFetchError):
        asyncio.run(MediaFetcher().fetch_async("ftp://x"))


def test_cancelling_closes_the_connection(serve: Serve) -> None:
    arrived, hung_up = threading.Event(), threading.Event()

    def answer(connection: socket.socket, head: bytes) -> None:
        arrived.set()
        connection.recv(1)  # returns when the client hangs up
        hung_up.set()

    network = Network(serve(answer).port, media_example=["93.184.216.34"])
    fetcher = network.fetcher(total_timeout=60.0)

    async def abandon() -> None:
        task = asyncio.create_task(fetcher.fetch_async("http://media.example/"))
        await asyncio.to_thread(arrived.wait, 10)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(abandon())
    assert hung_up.wait(10)


@pytest.mark.parametrize(
    ("limits", "hosts"),
    [
        ({"max_concurrent_per_host": 2}, ["a.example"] * 6),
        ({"max_concurrent": 2}, ["a.example", "b.example", "c.example"] * 2),
    ],
)
def test_fetches_at_a_time(serve: Serve, limits: dict[str, int], hosts: list[str]) -> None:
    lock = threading.Lock()
    full = threading.Event()
    running = most = 0

    def answer(connection: socket.socket, head: bytes) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                full.set()
        full.wait(10)
        # Counted down before the answer: the client may start the next one right after it.
        with lock:
            running -= 1
        connection.sendall(OK)

    addresses = {name: ["93.184.216.34"] for name in ("a_example", "b_example", "c_example")}
    fetcher = Network(serve(answer).port, **addresses).fetcher(**limits)

    async def several() -> list[bytes]:
        return await asyncio.gather(*(fetcher.fetch_async(f"http://{h}/") for h in hosts))

    assert asyncio.run(several()) == [b"ok"] * 6
    assert most == 2
    assert fetcher._slots._by_host == {}
    assert fetcher._slots._running == 0


def test_waiting_for_a_slot_counts_as_time(serve: Serve) -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        server.stopped.wait()

    server = serve(answer)
    network = Network(server.port, media_example=["93.184.216.34"])
    fetcher = network.fetcher(max_concurrent=1, total_timeout=0.2)
    holder = threading.Thread(target=lambda: refusal(fetcher, "http://media.example/"))
    holder.start()
    assert refusal(fetcher, "http://media.example/").code == "media_fetch_timeout"
    holder.join()
