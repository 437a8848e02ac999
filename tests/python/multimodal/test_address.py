"""Unit: which URLs and addresses the fetcher may dial. Nothing is dialled here."""

from __future__ import annotations

import random
import re

import pytest

from mmcore.errors import MediaFetchError
from mmcore.multimodal.address import HttpUrl, check_address, parse_http_url, parse_networks


def parse(url: str, domains: list[str] | None = None) -> HttpUrl:
    return parse_http_url(url, allowed_ports=(80, 443), allowed_domains=domains)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", HttpUrl("http", "example.com", 80, "/")),
        ("https://example.com/a.png", HttpUrl("https", "example.com", 443, "/a.png")),
        ("HTTPS://Example.COM/A?b=c&d", HttpUrl("https", "example.com", 443, "/A?b=c&d")),
        ("http://example.com:443/", HttpUrl("http", "example.com", 443, "/")),
        ("http://example.com./x", HttpUrl("http", "example.com", 80, "/x")),
        ("http://1.1.1.1/x", HttpUrl("http", "1.1.1.1", 80, "/x")),
        ("http://[2606:4700::1111]/x", HttpUrl("http", "2606:4700::1111", 80, "/x")),
        ("http://a-b.c_d.example/@user/~x/%2e%2e", None),
        ("http://xn--bcher-kva.example/x#part?@", None),
    ],
)
def test_plain_urls(url: str, expected: HttpUrl | None) -> None:
    parsed = parse(url)
    if expected is not None:
        assert parsed == expected
    assert "#" not in parsed.target


def test_host_header() -> None:
    assert parse("http://example.com/").authority == "example.com"
    assert parse("http://example.com:443/").authority == "example.com:443"
    assert parse("https://[2606:4700::1111]/").authority == "[2606:4700::1111]"
    assert str(parse("https://example.com:80/a")) == "https://example.com:80/a"


@pytest.mark.parametrize(
    "url",
    [
        r"http://127.0.0.1:6666\@1.1.1.1",
        r"http://1.1.1.1\@127.0.0.1/",
        "http://1.1.1.1#@127.0.0.1/",
        "http://1.1.1.1?@127.0.0.1/",
        "http://user@1.1.1.1/",
        "http://user:password@1.1.1.1/",
        "http://1.1.1.1 /",
        " http://1.1.1.1/",
        "http://1.1.1.1/ ",
        "http://1.1.1.1/a b",
        "http://1.1.1.1/\t",
        "http://1.1.1.1/\nHost: x",
        "http://1.1.1.1/\r\n\r\nGET / HTTP/1.1",
        "ht\ntp://1.1.1.1/",
        "http://127%2e0%2e0%2e1/",
        "http://127。0。0。1/",
        "http://ⓔxample.com/",
        "http://example.com/ü",
        "http:/example.com/",
        r"http:/\example.com/",
        "http:///example.com/",
        "http:example.com",
        "//example.com/",
        "http://",
        "http://:80/",
        "http://.com/",
        "http://-a.com/",
        "http://a..b/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:127.0.0.1]x/",
        "http://[1.1.1.1]/",
        "http://[12345::]/",
        "http://example.com:port/",
        "http://example.com:443443/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://1.1.1.256/",
        "http://1.1.1.1.1/",
        "http://example.com.0x1/",
        "https:example.com",
        "ftp://example.com/",
        "gopher://example.com/",
        "javascript:alert(1)",
        "blob:http://example.com/",
        "s3://bucket/key",
        "http://" + "a" * 9000 + ".com/",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(MediaFetchError) as caught:
        parse(url)
    assert caught.value.code == "media_url_blocked"
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("port", [0, 22, 25, 6379, 8000, 65535, 99999])
def test_other_ports(port: int) -> None:
    with pytest.raises(MediaFetchError, match=f"port {port} is not one of 80, 443"):
        parse(f"http://example.com:{port}/")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("example.com.", True),
        ("img.example.com", True),
        ("notexample.com", False),
        ("example.com.evil.net", False),
        ("com", False),
        ("1.1.1.1", False),
    ],
)
def test_allowed_domains(host: str, allowed: bool) -> None:
    if allowed:
        parse(f"https://{host}/x", [".Example.com"])
        return
    with pytest.raises(MediaFetchError, match="not an allowed media domain"):
        parse(f"https://{host}/x", [".Example.com"])


def test_what_is_dialled_is_what_any_reader_sees() -> None:
    """Mutated URLs either are refused, or have the host that a plain reading gives."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    start = ["http://127.0.0.1:80/a", "https://example.com/x?y=z", "http://user@host.com/"]
    pieces = [
        "@",
        "\\",
        "#",
        "?",
        "/",
        ":",
        "%2e",
        ".",
        " ",
        "\t",
        "[",
        "]",
        "127.0.0.1",
        "。",
        "0x",
    ]
    accepted = 0
    for _ in range(10_000):
        url = rng.choice(start)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(url) + 1)
            url = url[:place] + rng.choice(pieces) + url[place + rng.randint(0, 1) :]
        try:
            parsed = parse(url)
        except MediaFetchError:
            continue
        accepted += 1
        plain = re.match(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:\d+)?(/|$)", url)
        assert plain is not None, url
        assert plain[1].lower().strip("[].") == parsed.host.strip("."), url
    assert accepted > 100


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "localhost",
    "",
    "127.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    with pytest.raises(MediaFetchError) as caught:
        check_address(address)
    assert caught.value.code == "media_url_blocked"
    assert address == "" or address not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("1.1.1.1", "1.1.1.1"),
        ("93.184.216.34", "93.184.216.34"),
        ("2606:4700:4700::1111", "2606:4700:4700::1111"),
        ("2A00:1450:4001:080e:0000:0000:0000:200e", "2a00:1450:4001:80e::200e"),
        ("::ffff:1.1.1.1", "1.1.1.1"),
    ],
)
def test_public_addresses(address: str, dialled: str) -> None:
    assert check_address(address) == dialled


def test_networks_of_the_operator() -> None:
    networks = parse_networks(["10.1.0.0/16", "fd00:1::/32"])
    assert check_address("10.1.2.3", networks) == "10.1.2.3"
    assert check_address("::ffff:10.1.2.3", networks) == "10.1.2.3"
    assert check_address("fd00:1::5", networks) == "fd00:1::5"
    for other in ("10.2.0.1", "127.0.0.1", "fd00:2::1"):
        with pytest.raises(MediaFetchError):
            check_address(other, networks)
    with pytest.raises(ValueError, match="does not appear to be"):
        parse_networks(["everything"])
