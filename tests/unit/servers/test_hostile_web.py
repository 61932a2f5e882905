"""The hostile server does what it is told to: what it breaks is broken, and what it serves in good faith is whole."""

from __future__ import annotations

import gzip
import http.client
import math
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import quote

import pytest
from PIL import Image

from tests.servers.hostile_web import BOMB_BYTES, EVIL_NAME, HostileWeb, bomb, double_bomb, hostile_web, picture


@pytest.fixture
def web() -> Iterator[HostileWeb]:
    with hostile_web() as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def talk(web: HostileWeb) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(web.host, web.port, timeout=10))


def ask(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> Answer:
    connection.request(method, path)
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def get(web: HostileWeb, path: str, method: str = "GET") -> Answer:
    with talk(web) as connection:
        return ask(connection, path, method)


def dial(web: HostileWeb, path: str) -> socket.socket:
    line = socket.create_connection((web.host, web.port), timeout=10)
    line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return line


def read(line: socket.socket, at_least: int) -> bytes:
    """So many bytes, or fewer if the server ends."""
    got = b""
    while len(got) < at_least and (more := line.recv(1 << 16)):
        got += more
    return got


def spoken(web: HostileWeb, path: str, at_least: int = 10**9) -> bytes:
    with dial(web, path) as line:
        return read(line, at_least)


def test_pictures_are_jpegs_that_differ_and_stay_the_same() -> None:
    pictures = {picture(number) for number in range(50)}
    assert len(pictures) == 50
    made_before = picture(7)
    picture.cache_clear()
    assert picture(7) == made_before
    with Image.open(BytesIO(made_before)) as image:
        image.load()
        assert image.format == "JPEG"


def test_a_picture_comes_whole_with_its_headers_over_one_connection(web: HostileWeb) -> None:
    with talk(web) as connection:
        first, second = ask(connection, "/picture/3.jpg"), ask(connection, "/picture/4.jpg")
    assert first.body == picture(3)
    assert second.body == picture(4)
    assert first.headers["Content-Type"] == "image/jpeg"
    assert first.headers["Last-Modified"] == second.headers["Last-Modified"]
    assert first.headers["ETag"] != second.headers["ETag"]
    assert [seen.connection for seen in web.requests] == [1, 1]


def test_what_is_asked_is_written_down(web: HostileWeb) -> None:
    get(web, "/status/500?retry-after=3")
    get(web, "/picture/1.jpg")
    first, second = web.requests
    assert (first.path, first.method, first.connection) == ("/status/500?retry-after=3", "GET", 1)
    assert (second.path, second.connection) == ("/picture/1.jpg", 2)
    assert second.headers["host"] == f"{web.host}:{web.port}"
    assert first.start <= first.end <= second.start
    assert web.url("/a?b=c") == f"http://{web.host}:{web.port}/a?b=c"


def test_requests_that_overlap_are_counted(web: HostileWeb) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda number: get(web, f"/slow/300/{number}.jpg"), range(3)))
    assert [answer.body for answer in answers] == [picture(number) for number in range(3)]
    assert web.most_at_once == 3
    get(web, "/picture/1.jpg")
    assert web.most_at_once == 3


def test_own_pictures_robots_and_reservations(web: HostileWeb) -> None:
    assert get(web, "/robots.txt").status == get(web, "/.well-known/tdmrep.json").status == 404
    web.pictures["/a/b.jpg"] = picture(9)
    web.robots = (200, b"User-agent: *\nDisallow: /a/\n")
    web.tdmrep = (200, b"[]")
    assert get(web, "/a/b.jpg").body == picture(9)
    assert get(web, "/robots.txt").body == web.robots[1]
    assert get(web, "/robots.txt").headers["Content-Type"] == "text/plain"
    assert get(web, "/.well-known/tdmrep.json").headers["Content-Type"] == "application/json"
    web.robots = (503, b"")
    assert get(web, "/robots.txt").status == 503


def test_headers_of_a_path_are_added_or_take_the_place_of_its_own(web: HostileWeb) -> None:
    web.headers["/status/301"] = [("Location", "/loop")]
    web.headers["/picture/1.jpg"] = [("content-type", "image/png"), ("X-Robots-Tag", "a"), ("X-Robots-Tag", "b")]
    assert get(web, "/status/301").headers["Location"] == "/loop"
    answer = get(web, "/picture/1.jpg")
    assert answer.headers.get_all("Content-Type") == ["image/png"]
    assert answer.headers.get_all("X-Robots-Tag") == ["a", "b"]


@pytest.mark.parametrize("code", [200, 204, 304, 404, 410, 429, 500, 999])
def test_any_status(web: HostileWeb, code: int) -> None:
    with talk(web) as connection:
        answer = ask(connection, f"/status/{code}")
        assert (answer.status, answer.headers["Retry-After"]) == (code, None)
        assert (
            ask(connection, f"/status/{code}?retry-after=" + quote("a date, 7")).headers["Retry-After"] == "a date, 7"
        )


def test_a_flaky_picture_comes_after_its_failures(web: HostileWeb) -> None:
    assert [get(web, "/flaky/2/5.jpg").status for _ in range(4)] == [503, 503, 200, 200]
    assert get(web, "/flaky/1/5.jpg").status == 503
    assert get(web, "/flaky/0/5.jpg").body == picture(5)


@pytest.mark.parametrize("method", ["HEAD", "POST", "BREW"])
def test_only_get_is_allowed(web: HostileWeb, method: str) -> None:
    answer = get(web, "/picture/1.jpg", method)
    assert (answer.status, answer.headers["Allow"], answer.body) == (405, "GET", b"")


@pytest.mark.parametrize("path", ["/", "/picture/x.jpg", "/picture/1.jpg/", "/status/1000", "/nothing"])
def test_an_unknown_path_is_not_found(web: HostileWeb, path: str) -> None:
    assert get(web, path).status == 404


@pytest.mark.parametrize("path", ["/chunked.jpg", "/no-length", "/wrong-type.jpg", "/noai.jpg", "/tdm.jpg", "/name/x"])
def test_odd_but_whole_pictures(web: HostileWeb, path: str) -> None:
    answer = get(web, path)
    assert (answer.status, answer.body) == (200, picture(0))


def test_headers_that_are_told_by_their_path(web: HostileWeb) -> None:
    assert get(web, "/wrong-type.jpg").headers["Content-Type"] == "application/octet-stream"
    assert get(web, "/noai.jpg").headers["X-Robots-Tag"] == "noai"
    assert get(web, "/tdm.jpg").headers["tdm-reservation"] == "1"
    assert EVIL_NAME in get(web, "/name/some/thing?x").headers["Content-Disposition"]
    assert get(web, "/chunked.jpg").headers["Transfer-Encoding"] == "chunked"
    assert get(web, "/no-length").headers["Content-Length"] is None


def test_answers_that_are_no_pictures(web: HostileWeb) -> None:
    page, error, empty = (get(web, path) for path in ("/page.jpg", "/error-page", "/empty.jpg"))
    assert (page.headers["Content-Type"], page.body[:9]) == ("image/jpeg", b"<!doctype")
    assert (error.status, error.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (empty.status, empty.headers["Content-Length"], empty.body) == (200, "0", b"")


def test_a_picture_may_come_zipped_unasked(web: HostileWeb) -> None:
    answer = get(web, "/gzipped.jpg")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body) == picture(0)


def test_the_bomb_is_small_and_sound_and_inflates_to_a_gigabyte(web: HostileWeb) -> None:
    answer = get(web, "/gzip-bomb")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.body == bomb()
    assert len(answer.body) < BOMB_BYTES / 1000
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    first = inflater.decompress(answer.body, 1 << 20)
    assert first.startswith(picture(0))
    size = len(first)
    while inflater.unconsumed_tail:
        size += len(inflater.decompress(inflater.unconsumed_tail, 1 << 20))
    # Only a right checksum and length let it come to its end.
    assert inflater.eof
    assert size == BOMB_BYTES + len(picture(0))


def test_the_bomb_in_a_bomb_is_a_few_kilobytes(web: HostileWeb) -> None:
    answer = get(web, "/gzip-bomb-twice")
    assert answer.headers["Content-Encoding"] == "gzip, gzip"
    assert answer.body == double_bomb()
    assert len(answer.body) < 20_000
    assert gzip.decompress(answer.body) == bomb()


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/loop", "/loop"),
        ("/hops/2", "/hops/1"),
        ("/to?url=" + quote("http://169.254.169.254/latest?a=b&c", safe=""), "http://169.254.169.254/latest?a=b&c"),
        ("/to-relative", "picture/1.jpg"),
        ("/to-nowhere", None),
        ("/to-file", "file:///etc/passwd"),
    ],
)
def test_redirects(web: HostileWeb, path: str, location: str | None) -> None:
    answer = get(web, path)
    assert (answer.status, answer.headers["Location"]) == (302, location)


def test_hops_end_in_a_picture(web: HostileWeb) -> None:
    path, hops = "/hops/4", 0
    while (answer := get(web, path)).status == 302:
        path, hops = answer.headers["Location"], hops + 1
    assert (hops, answer.body) == (4, picture(0))


def test_a_slow_head_drips(web: HostileWeb) -> None:
    with dial(web, "/slow-head") as line:
        assert [line.recv(100) for _ in range(3)] == [b"H", b"T", b"T"]
    assert_free(web)


def test_a_slow_body_drips_after_its_head(web: HostileWeb) -> None:
    with dial(web, "/slow-body") as line:
        body = read(line, 1).partition(b"\r\n\r\n")[2]
        body += line.recv(100) + line.recv(100)
    assert 2 <= len(body) <= 3
    assert picture(0).startswith(body)


def test_the_silent_path_says_nothing_until_the_client_goes(web: HostileWeb) -> None:
    with dial(web, "/silent") as line:
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)
        assert web.requests[0].end == math.inf
    assert_free(web)


@pytest.mark.parametrize(
    ("path", "framing"),
    [("/endless", b"Transfer-Encoding: chunked"), ("/endless-length", b"Content-Length: 1000000000000")],
)
def test_endless_bodies_begin_as_pictures_and_go_on_as_long_as_they_are_read(
    web: HostileWeb, path: str, framing: bytes
) -> None:
    got = spoken(web, path, 20_000_000)
    assert framing in got.partition(b"\r\n\r\n")[0]
    assert picture(0) in got[:10_000]
    assert len(got) >= 20_000_000
    assert_free(web)


def assert_free(web: HostileWeb) -> None:
    """The server has noticed that its clients have gone."""
    deadline = time.monotonic() + 10
    while web.at_once and time.monotonic() < deadline:
        time.sleep(0.01)
    assert web.at_once == 0
    assert all(seen.end < math.inf for seen in web.requests)


def test_lengths_that_lie(web: HostileWeb) -> None:
    with pytest.raises(http.client.IncompleteRead) as short:
        get(web, "/short")
    assert picture(0).startswith(short.value.partial)
    with dial(web, "/long") as line:
        head, _, body = read(line, len(picture(0)) + 50).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(picture(0)) // 2}".encode() in head
        body += read(line, len(picture(0)) - len(body))
        assert body == picture(0)
        line.sendall(b"GET /empty.jpg HTTP/1.1\r\n\r\n")
        assert read(line, 1).startswith(b"HTTP/1.1 200")


def test_resets(web: HostileWeb) -> None:
    with dial(web, "/reset") as line:
        got = read(line, 200)
        assert got.partition(b"\r\n\r\n")[2] in picture(0)
        with pytest.raises(ConnectionResetError):
            read(line, 10**9)
    with dial(web, "/reset-before") as line, pytest.raises(ConnectionResetError):
        line.recv(1)


def test_what_is_no_http(web: HostileWeb) -> None:
    with pytest.raises(http.client.IncompleteRead):
        get(web, "/bad-chunk")
    with pytest.raises(http.client.BadStatusLine):
        get(web, "/bad-status")
    huge = spoken(web, "/huge-headers", 1_000_000)
    assert len(huge) >= 1_000_000
    assert b"\r\n\r\n" not in huge[:1_000_000]
    assert b"X-Nul: a\0b\r\n" in spoken(web, "/nul-header", 400)


def test_a_request_that_is_no_http_is_refused(web: HostileWeb) -> None:
    with socket.create_connection((web.host, web.port), timeout=10) as line:
        line.sendall(b"hello\r\n\r\n")
        assert read(line, 10**9).startswith(b"HTTP/1.1 400")
    assert web.requests == []


def test_the_end_of_the_block_ends_connections_and_thread() -> None:
    before = threading.active_count()
    with hostile_web() as web:
        lines = [dial(web, path) for path in ("/silent", "/slow-head", "/slow/60000/1.jpg", "/endless")]
        idle = socket.create_connection((web.host, web.port), timeout=10)
        get(web, "/gzip-bomb-twice")
    assert threading.active_count() == before
    for line in (*lines, idle):
        with line:
            try:
                read(line, 10**9)
            except ConnectionResetError:
                continue
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((web.host, web.port), timeout=10)


def test_servers_at_two_addresses_may_share_a_port() -> None:
    with hostile_web() as one, hostile_web("127.0.0.3", one.port) as other:
        other.pictures["/mine.jpg"] = picture(1)
        assert get(other, "/mine.jpg").body == picture(1)
        assert get(one, "/mine.jpg").status == 404
        with pytest.raises(OSError, match="in use"), hostile_web(port=one.port):
            pass
