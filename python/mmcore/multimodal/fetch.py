"""The one fetcher: every byte of media that comes from a URL comes through here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urljoin

from mmcore.errors import MediaError, MediaFetchError
from mmcore.multimodal.address import (
    blocked,
    check_address,
    is_address,
    parse_http_url,
    parse_networks,
)
from mmcore.multimodal.http_fetch import Deadline, Dial, dial, failed, get, timed_out, too_large
from mmcore.multimodal.local_file import read_local_file

__all__ = ["FetchPolicy", "MediaFetcher"]

Resolve = Callable[[str, int], Sequence[str]]
"""``(host, port)`` -> the addresses that the host has."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched, and at what cost.

    Parameters
    ----------
    media_urls
        ``"public"`` for any host with public addresses, ``"allowlist"`` for `allowed_domains`
        only, ``"off"`` for no http at all. ``data:`` URLs are always allowed.
    allowed_domains
        Host names with their subdomains; needed by ``"allowlist"``.
    allowed_ports
        Ports that may be dialled.
    allowed_private_networks
        Networks such as ``"10.1.0.0/16"`` that may be dialled although they are not public. Only
        for an operator's own media store: whoever can send a URL can then read from there.
    allowed_local_media_path
        The folder below which ``file://`` URLs are read; None refuses them.
    connect_timeout, total_timeout
        Seconds for a connection, and for everything from the call on, redirects included.
    max_redirects
        Redirects to follow; each one is checked like a new URL.
    max_bytes
        Longest file.
    max_concurrent, max_concurrent_per_host
        Fetches at a time; others wait inside their time-out.
    """

    media_urls: Literal["public", "allowlist", "off"] = "public"
    allowed_domains: Collection[str] = ()
    allowed_ports: Collection[int] = (80, 443)
    allowed_private_networks: Sequence[str] = ()
    allowed_local_media_path: str | None = None
    connect_timeout: float = 3.0
    total_timeout: float = 10.0
    max_redirects: int = 3
    max_bytes: int = 20 * 1024 * 1024
    max_concurrent: int = 64
    max_concurrent_per_host: int = 8

    def __post_init__(self) -> None:
        if self.media_urls not in ("public", "allowlist", "off"):
            raise ValueError(
                f"media_urls must be public, allowlist or off, got {self.media_urls!r}."
            )
        if self.media_urls == "allowlist" and not self.allowed_domains:
            raise ValueError("media_urls='allowlist' needs allowed_domains.")
        for name in (
            "connect_timeout",
            "total_timeout",
            "max_bytes",
            "max_concurrent",
            "max_concurrent_per_host",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}.")
        if self.max_redirects < 0:
            raise ValueError(f"max_redirects must not be negative, got {self.max_redirects!r}.")
        parse_networks(self.allowed_private_networks)
        if self.allowed_local_media_path and not os.path.isdir(self.allowed_local_media_path):
            raise ValueError(
                f"allowed_local_media_path {self.allowed_local_media_path!r} is not a folder."
            )


class MediaFetcher:
    """Fetches media from http(s), data and file URLs. Thread-safe.

    Parameters
    ----------
    policy
        What may be fetched.
    tls
        Certificates to trust; the system's when left out.
    resolve, connect
        How names become addresses and addresses become connections; for hosts with resolvers
        of their own. Addresses are checked between the two.
    """

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        connect: Dial = dial,
    ) -> None:
        self.policy = FetchPolicy() if policy is None else policy
        self._tls = tls
        self._resolve = _resolve if resolve is None else resolve
        self._connect = connect
        self._private = parse_networks(self.policy.allowed_private_networks)
        self._slots = _HostSlots(self.policy.max_concurrent, self.policy.max_concurrent_per_host)
        self._threads = _LazyPool(self.policy.max_concurrent, "mmcore-fetch")

    def fetch(self, url: str, *, kind: str = "image") -> bytes:
        """Fetch a file.

        Parameters
        ----------
        url
            Where it is.
        kind
            ``"image"``, ``"audio"`` or ``"video"``: what a ``data:`` URL must say it is.

        Raises
        ------
        MediaError
            If a ``data:`` URL is malformed.
        MediaFetchError
            If it may not be, or could not be, fetched.
        """
        return self._fetch(url, kind, Deadline(self.policy.total_timeout))

    async def fetch_async(self, url: str, *, kind: str = "image") -> bytes:
        """Fetch like :meth:`fetch`, beside the event loop; cancelling ends the connection."""
        deadline = Deadline(self.policy.total_timeout)
        future = self._threads.submit(lambda: self._fetch(url, kind, deadline))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            deadline.cancel()
            raise

    def _fetch(self, url: str, kind: str, deadline: Deadline) -> bytes:
        if not isinstance(url, str):
            raise MediaFetchError(
                f"'{kind}_url' must be a string, got {type(url).__name__}.",
                code="media_url_blocked",
            )
        scheme = url[:10].lower()
        if scheme.startswith(f"data:{kind}"):
            return _read_data_url(url, kind, self.policy.max_bytes)
        if scheme.startswith("file:"):
            policy = self.policy
            return read_local_file(url, policy.allowed_local_media_path, policy.max_bytes)
        if scheme.startswith("http"):
            return self._fetch_http(url, deadline)
        raise MediaFetchError(
            f"Invalid '{kind}_url': A valid '{kind}_url' must start with either "
            f"'data:{kind}' or 'http'.",
            code=f"invalid_{kind}" if scheme.startswith("data:") else "media_url_blocked",
        )

    def _fetch_http(self, url: str, deadline: Deadline) -> bytes:
        policy = self.policy
        if policy.media_urls == "off":
            raise blocked("fetching media by URL is switched off; send a data: URL instead.")
        domains = policy.allowed_domains if policy.media_urls == "allowlist" else None
        for _ in range(policy.max_redirects + 1):
            target = parse_http_url(
                url, allowed_ports=policy.allowed_ports, allowed_domains=domains
            )
            with self._slots.taken(target.host, deadline):
                address = self._address_of(target.host, target.port, deadline)
                reply = get(
                    target,
                    address,
                    deadline=deadline,
                    connect_timeout=policy.connect_timeout,
                    max_bytes=policy.max_bytes,
                    tls=self._tls,
                    connect=self._connect,
                )
            if reply.status == 200:
                return reply.body
            if not reply.location:
                raise failed(f"the server answered with status {reply.status} and no location.")
            # The new URL goes through every check again.
            url = urljoin(str(target), reply.location)
        raise failed(f"there are more than {policy.max_redirects} redirects.")

    def _address_of(self, host: str, port: int, deadline: Deadline) -> str:
        """Resolve a host once and judge every address it has; give the one to dial."""
        if is_address(host):
            return check_address(host, self._private)
        found = _with_timeout(lambda: self._resolve(host, port), deadline)
        addresses = [check_address(address, self._private) for address in found]
        if not addresses:
            raise failed("its host name cannot be resolved.")
        return addresses[0]


def _resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _read_data_url(url: str, kind: str, max_bytes: int) -> bytes:
    header, comma, payload = url.partition(",")
    if not comma or not re.search(r";base64$", header, re.IGNORECASE):
        raise MediaError(
            f"The data URL is malformed; write data:{kind}/...;base64, and then the file in "
            "base64.",
            code=f"invalid_{kind}",
        )
    if len(payload) > (max_bytes + 2) // 3 * 4:
        raise too_large(max_bytes)
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError(
            "The data URL does not hold valid base64.", code=f"invalid_{kind}"
        ) from None
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


class _HostSlots:
    """Bounds the fetches at a time, over all hosts and to each of them."""

    def __init__(self, total: int, per_host: int) -> None:
        self._total = total
        self._per_host = per_host
        self._changed = threading.Condition()
        self._running = 0
        self._by_host: dict[str, int] = {}

    @contextmanager
    def taken(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Hold a slot; wait for one until the deadline."""
        with self._changed:
            while self._running >= self._total or self._by_host.get(host, 0) >= self._per_host:
                self._changed.wait(deadline.remaining())
            self._running += 1
            self._by_host[host] = self._by_host.get(host, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._by_host[host] -= 1
                if not self._by_host[host]:
                    del self._by_host[host]
                self._changed.notify_all()


class _LazyPool:
    """A thread pool that starts with its first task."""

    def __init__(self, max_workers: int, name: str) -> None:
        self._max_workers = max_workers
        self._name = name
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, task: Callable[[], bytes]) -> Future[bytes]:
        """Run a task on a thread of the pool."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._max_workers, self._name)
            return self._pool.submit(task)


def _with_timeout(task: Callable[[], Sequence[str]], deadline: Deadline) -> Sequence[str]:
    """Run a resolver, which knows no time-outs, and stop waiting for it at the deadline."""
    future: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: a resolver that hangs must not hold the process at its end.
    threading.Thread(target=run, name="mmcore-resolve", daemon=True).start()
    try:
        return future.result(deadline.remaining())
    except MediaFetchError:
        raise
    except (OSError, UnicodeError) as error:
        # gaierror is an OSError; so is TimeoutError from Python 3.11 on.
        if isinstance(error, TimeoutError) and not future.done():
            raise timed_out() from None
        raise failed("its host name cannot be resolved.") from None
    except Exception as error:
        if not future.done():  # concurrent.futures.TimeoutError before Python 3.11
            raise timed_out() from None
        raise failed("its host name cannot be resolved.") from error
