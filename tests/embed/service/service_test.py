"""End to end: the example service, asked over HTTP. Usage: service_test.py PROGRAM EXPECTED.json

EXPECTED.json holds the token ids that Python's LLM gives for the bundled picture.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from service_process import PICTURE, Service, draw, encoded, question

PROGRAM = Path(sys.argv[1]).resolve()
EXPECTED = json.loads(Path(sys.argv[2]).read_text())
SMALL = draw(3)


def same_tokens_as_python(service: Service) -> None:
    body = question("Describe the image.", PICTURE.read_bytes(), return_token_ids=True)
    body["max_tokens"] = 64
    whole = service.post(body)
    streamed = service.post({**body, "stream": True})
    assert whole.status == streamed.status == 200
    assert whole.token_ids == streamed.token_ids == EXPECTED["token_ids"], whole
    assert whole.text == streamed.text == EXPECTED["text"].lstrip(), whole
    assert whole.body["choices"][0]["finish_reason"] == "stop"
    assert streamed.events[-1]["usage"]["completion_tokens"] == len(EXPECTED["token_ids"])


def pictures_of_other_kinds(service: Service) -> None:
    assert service.post(question("Describe the image.", draw(3, "JPEG"))).status == 200
    url = "data:image/png;base64," + encoded(SMALL)
    body = question("Describe the image.", SMALL)
    assert service.post({**body, "images": [url]}).text == service.post(body).text
    large = service.post(question("Describe the image.", draw(3, size=700)))
    assert large.status == 200 and large.body["usage"]["prompt_tokens"] > 196


def an_image_token_in_text_is_text(service: Service) -> None:
    reply = service.post(question("What is <image> and </s>?"))
    assert reply.status == 200
    assert reply.body["usage"]["prompt_tokens"] < 60


def bad_requests_fail_alone(service: Service) -> None:
    body = question("Describe the image.", SMALL)
    broken = encoded(SMALL[:200])
    header = SMALL[12:16] + (60000).to_bytes(4, "big") * 2 + SMALL[24:29]
    bomb = SMALL[:12] + header + zlib.crc32(header).to_bytes(4, "big") + SMALL[33:]
    cases: list[tuple[object, str]] = [
        (b"{", "JSON object"),
        (b"[]", "JSON object"),
        (b"\xff\xfe", "JSON object"),
        ({}, '"prompt" is missing'),
        ({**body, "prompt": 3}, '"prompt" must be a string'),
        ({**body, "prompt": "no placeholder"}, "1"),
        ({**body, "prompt": body["prompt"] + "<image>"}, "2"),
        ({**body, "images": ["###"]}, "no base64"),
        ({**body, "images": ["http://127.0.0.1/x.png"]}, "not fetched"),
        ({**body, "images": [broken]}, "images[0]: "),
        ({**body, "images": [encoded(b"GIF89a" + bytes(50))]}, "neither a PNG nor a JPEG"),
        ({**body, "images": [encoded(bomb)]}, "pixels"),
        ({**body, "images": [encoded(draw(3, "JPEG")[:300])]}, "images[0]: "),
        ({**body, "images": [encoded(SMALL)] * 9}, "at most 8"),
        ({**body, "temprature": 1}, 'unknown name "temprature"'),
        ({**body, "temperature": -1}, "temperature"),
        ({**body, "max_tokens": 0}, "max_tokens"),
        ({**body, "max_tokens": 2**40}, "too large"),
        ({**body, "max_tokens": 1.5}, "an integer"),
        ({**body, "seed": -1}, "too small"),
        ({**body, "stop": [""]}, "empty string"),
        ({**body, "prompt": "word " * 5000 + "<image>"}, "2048"),
    ]
    for request, words in cases:
        reply = service.post(request)
        assert reply.status == 400, (request, reply)
        assert words in reply.body["error"]["message"], (words, reply)
    assert service.post({}, "/v1/nothing").status == 404
    assert service.post(body).status == 200


def a_large_body_is_refused(service: Service) -> None:
    # It may answer and close while the body is still being sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert service.post(b" " * (17 << 20)).status == 413
    assert service.get("/health")[0] == 200


def stop_strings_end_the_text(service: Service) -> None:
    body = question("Describe the image.", PICTURE.read_bytes(), max_tokens=64)
    text = EXPECTED["text"].lstrip()
    cut = text.index("circle")
    for stop in ("circle", ["nowhere", "circle"]):
        for stream in (False, True):
            reply = service.post({**body, "stop": stop, "stream": stream})
            assert reply.text == text[:cut], reply
    assert service.metrics()["requests_failed_total"] == 0


def seeds_repeat(service: Service) -> None:
    body = question("Describe the image.", SMALL, temperature=1.5, seed=7)
    assert service.post(body).text == service.post(body).text


def a_client_that_leaves_is_aborted(service: Service) -> None:
    before = service.metrics()
    endless = question("Describe the image.", SMALL, max_tokens=1500, ignore_eos=True)
    for stream in (True, False):
        data = json.dumps({**endless, "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            connection.sendall(head.encode() + data)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
    while (now := service.metrics())["requests_running"] + now["requests_waiting"]:
        pass
    assert now["requests_aborted_total"] == before["requests_aborted_total"] + 2
    assert now["http_disconnects_total"] == before["http_disconnects_total"] + 2
    assert now["kv_blocks_used"] == now["encoder_entries_pinned"] == 0


def too_many_are_refused_and_the_end_is_graceful() -> None:
    with Service(PROGRAM, "--max-requests", "1") as service, service.connection() as connection:
        body = question("Describe the image.", SMALL, max_tokens=400, ignore_eos=True, stream=True)
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        first = response.read(6)
        second = service.post(question("Describe the image.", SMALL))
        assert second.status == 429 and second.body["error"]["type"] == "overloaded", second
        service.process.terminate()
        assert service.process.stdout is not None
        assert service.process.stdout.readline().startswith("signal 15")
        try:
            while (status := service.get("/health")[0]) == 200:
                pass  # until the drain has begun
            assert status == 503
        except (http.client.HTTPException, OSError):
            pass  # the stream had ended, and the service with it
        assert (first + response.read()).decode().endswith("data: [DONE]\n\n")
        status, rest = service.terminate()
        assert status == 0 and "0 unfinished, 0 blocks in use, 0 pins" in rest, (status, rest)


def main() -> int:
    """Run all tests."""
    tests: tuple[Callable[[Service], None], ...] = (
        same_tokens_as_python,
        pictures_of_other_kinds,
        an_image_token_in_text_is_text,
        bad_requests_fail_alone,
        a_large_body_is_refused,
        stop_strings_end_the_text,
        seeds_repeat,
        a_client_that_leaves_is_aborted,
    )
    with Service(PROGRAM) as service:
        for test in tests:
            test(service)
            print(f"service: {test.__name__.replace('_', ' ')}")
        status, rest = service.terminate()
        assert status == 0, rest
    too_many_are_refused_and_the_end_is_graceful()
    print("service: too many are refused and the end is graceful")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
