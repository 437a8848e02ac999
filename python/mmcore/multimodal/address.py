"""Which URLs media may be fetched from, and which addresses may be dialled for them.

A URL is parsed once, strictly: what is not plainly a host, a port and a path is refused, because
two parsers that read a strange URL differently are how guards are passed. Addresses are judged
after resolution, and the caller dials exactly an address that was judged.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mmcore.errors import MediaFetchError

__all__ = ["HttpUrl", "check_address", "is_address", "parse_http_url", "parse_networks"]

IPAddress: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
IPNetwork: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

MAX_URL_LENGTH = 8192

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[\x21-\x7e]*)?",
    re.IGNORECASE,
)
# The last label of a host name is never a number, decimal or hexadecimal; where it is, resolvers
# read the host as an address in one of several notations (127.1, 0x7f000001, 2130706433).
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)

# What is not in ipaddress's "not global", or not in that of every Python: tunnels and translators
# that carry an IPv4 address inside, and deprecated ranges.
_NEVER: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """The parts of a URL that are dialled and sent.

    Parameters
    ----------
    host
        Lower-case name or address, without brackets.
    target
        Path and query, as sent.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def blocked(reason: str) -> MediaFetchError:
    """Make the error for a URL that must not be fetched."""
    return MediaFetchError(f"The media URL was refused: {reason}", code="media_url_blocked")


def parse_http_url(
    url: str, *, allowed_ports: Collection[int], allowed_domains: Collection[str] | None
) -> HttpUrl:
    """Take a URL apart and check everything that needs no resolution.

    Parameters
    ----------
    allowed_ports
        Ports that may be dialled.
    allowed_domains
        Host names that may be fetched from, with their subdomains; None for any.

    Raises
    ------
    MediaFetchError
        If it is not a plain http or https URL, or its port or domain is not allowed.
    """
    if len(url) > MAX_URL_LENGTH:
        raise blocked(f"it is longer than {MAX_URL_LENGTH} characters.")
    bare = url.split("#", 1)[0] if re.match(r"[^#]*://[^/?#]+/", url) else url
    match = _URL.fullmatch(bare)
    if match is None:
        raise blocked(
            "it is not a plain http(s) URL, such as https://example.com/image.png; "
            "write other characters percent-encoded, and no user name, in it."
        )
    scheme = match["scheme"].lower()
    host = match["host"].lower().rstrip(".")
    port = int(match["port"]) if match["port"] else (443 if scheme == "https" else 80)
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise blocked("its host is not an IPv6 address.") from None
    elif _NUMERIC_LABEL.fullmatch(host.rsplit(".", 1)[-1]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise blocked("its host is an address in an unusual notation.") from None
    elif ".." in host:
        raise blocked("its host has an empty label.")
    if port not in allowed_ports:
        allowed = ", ".join(str(p) for p in sorted(allowed_ports))
        raise blocked(f"port {port} is not one of {allowed}.")
    if allowed_domains is not None and not any(
        host == domain or host.endswith("." + domain)
        for domain in (d.lower().strip(".") for d in allowed_domains)
    ):
        raise blocked("its host is not an allowed media domain.")
    return HttpUrl(scheme, host, port, match["target"] or "/")


def parse_networks(networks: Sequence[str]) -> tuple[IPNetwork, ...]:
    """Parse ``"10.0.0.0/8"`` and the like.

    Raises
    ------
    ValueError
        If one is no network.
    """
    return tuple(ipaddress.ip_network(network) for network in networks)


def is_address(host: str) -> bool:
    """Tell an address from a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_address(address: str, allowed_private: Sequence[IPNetwork] = ()) -> str:
    """Refuse an address that is not a public unicast one.

    Parameters
    ----------
    address
        What a name resolved to.
    allowed_private
        Networks that the operator allows beside the public ones.

    Returns
    -------
    str
        The address to dial.

    Raises
    ------
    MediaFetchError
        If it must not be dialled. The text does not tell which address it was.
    """
    try:
        ip: IPAddress = ipaddress.ip_address(address)
    except ValueError:  # for example an IPv6 address with a zone
        raise blocked("its host does not resolve to a usable address.") from None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if mapped is not None:
        ip = mapped
    if any(ip.version == network.version and ip in network for network in allowed_private):
        return str(ip)
    if (
        not ip.is_global
        or ip.is_multicast
        or ip.is_reserved
        or any(ip.version == network.version and ip in network for network in _NEVER)
    ):
        raise blocked("its host resolves to an address that is not public.")
    return str(ip)
