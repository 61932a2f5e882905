"""Downloads from a server that breaks every promise: each ends with its reason, and none takes the others with it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.servers.hostile_web import HostileWeb, bomb, double_bomb, hostile_web, picture
from vlmdata.config import NetworkConfig
from vlmdata.errors import StoreError
from vlmdata.ingest.reading import Lost
from vlmdata.ingest.web.fetching import fetch_rows
from vlmdata.opt_out import OptOut
from vlmdata.schema import FETCHES, LISTING, filled

pytestmark = pytest.mark.integration

HASTY = {"retries": 0, "first_byte_timeout_s": 0.6, "timeout_s": 1.2, "max_bytes": 200_000}
OUTLAWS = {"obey_robots": False, "obey_headers": False}
NOBODY = OptOut.read(None)


@pytest.fixture
def web() -> Iterator[HostileWeb]:
    with hostile_web() as server:
        yield server


def network(web: HostileWeb, **changes: Any) -> NetworkConfig:
    return NetworkConfig(**{"allow_networks": (f"{web.host}/32",), **HASTY, **OUTLAWS, **changes})


def unspoken(web: HostileWeb) -> NetworkConfig:
    """A config that says what this server needs, and nothing of manners."""
    return NetworkConfig(allow_networks=(f"{web.host}/32",), retries=0)


def fetched(web: HostileWeb, *paths: str, opt_out: OptOut = NOBODY, **changes: Any) -> list[dict[str, Any]]:
    """Rows of `schema.FETCHES`; a path is one of the server's, or a whole address."""
    return fetched_under(network(web, **changes), web, *paths, opt_out=opt_out)


def fetched_under(
    config: NetworkConfig, web: HostileWeb, *paths: str, opt_out: OptOut = NOBODY
) -> list[dict[str, Any]]:
    """The same under a config as it is."""
    urls = [web.url(path) if path.startswith("/") else path for path in paths]
    rows = filled(LISTING, len(urls), key=pa.array(urls), url=pa.array(urls), missing=False)
    readings = list(fetch_rows(config, opt_out, rows))
    told = [row for reading in readings if reading.fetches for row in reading.fetches.cast(FETCHES).to_pylist()]
    for row, got in zip(told, [got for reading in readings for got in reading.pictures], strict=True):
        assert (row["outcome"] == "kept") == isinstance(got, bytes)
        if isinstance(got, Lost):
            assert (row["code"], row["detail"], row["retryable"]) == (got.code, got.detail, got.retryable)
            assert got.detail.isprintable() and len(got.detail) > 3
    return told


GOOD = ["/picture/7.jpg", "/slow/50/7.jpg", "/chunked.jpg", "/no-length", "/gzipped.jpg", "/hops/5", "/to-relative",
        "/wrong-type.jpg", "/name/x"]  # fmt: skip


def test_pictures_arrive_as_they_are(web: HostileWeb) -> None:
    rows = fetched(web, *GOOD)
    assert [row["code"] for row in rows] == [None] * len(GOOD)
    expected = [picture(7), picture(7), *[picture(0)] * 4, picture(1), picture(0), picture(0)]
    assert [row["sha256"] for row in rows] == [sha256(data).hexdigest() for data in expected]
    assert [row["attempts"] for row in rows] == [1, 1, 1, 1, 1, 6, 2, 1, 1]
    assert rows[5]["final_url"] == web.url("/hops/0") and rows[0]["etag"].startswith('"')
    assert rows[0]["content_type"] == "image/jpeg" and rows[0]["last_modified"].endswith("GMT")
    assert rows[0]["bytes"] == len(picture(7)) and rows[0]["http_status"] == 200
    assert all(row["time"] is not None and row["seconds"] >= 0 for row in rows)


ENDS = {
    "/status/404": ("http_404", "failed", False),
    "/status/410": ("http_410", "failed", False),
    "/status/403": ("http_403", "failed", False),
    "/status/500": ("http_500", "failed", True),
    "/status/503": ("http_503", "failed", True),
    "/status/429": ("http_429", "failed", True),
    "/status/204": ("http_204", "failed", False),
    "/status/799": ("http_799", "failed", False),
    "/slow-head": ("timeout", "failed", True),
    "/slow-body": ("too_large", "failed", False),
    "/silent": ("timeout", "failed", True),
    "/endless": ("too_large", "failed", False),
    "/endless-length": ("too_large", "failed", False),
    "/short": ("connection_lost", "failed", True),
    "/reset": ("connection_lost", "failed", True),
    "/reset-before": ("connection_lost", "failed", True),
    "/bad-status": ("bad_http", "failed", False),
    "/huge-headers": ("bad_http", "failed", False),
    "/nul-header": ("bad_http", "failed", False),
    "/gzip-bomb": ("too_large", "failed", False),
    "/gzip-bomb-twice": ("unsupported_encoding", "failed", False),
    "/loop": ("too_many_redirects", "failed", False),
    "/hops/6": ("too_many_redirects", "failed", False),
    "/to-nowhere": ("bad_redirect", "failed", False),
    "/to?url=http://[": ("bad_redirect", "failed", False),
    "/to-file": ("unsupported_scheme", "rejected", False),
    "/page.jpg": ("web_page", "failed", False),
    "/error-page": ("web_page", "failed", False),
    "/empty.jpg": ("empty", "failed", False),
}


def test_every_misdeed_has_its_reason_and_the_rest_arrives(web: HostileWeb) -> None:
    # Made before anybody waits for them.
    assert len(bomb()) > len(double_bomb()) > 0
    rows = fetched(web, *ENDS, *GOOD)
    told = {path: (row["code"], row["outcome"], row["retryable"]) for path, row in zip(ENDS, rows, strict=False)}
    assert told == ENDS
    assert {row["outcome"] for row in rows[len(ENDS) :]} == {"kept"}
    statuses = {path: row["http_status"] for path, row in zip(ENDS, rows, strict=False)}
    assert statuses["/status/404"] == 404 and statuses["/silent"] is None


ODD = ["http://127.1/x.jpg", "http://2130706433/x.jpg", "http://0x7f.0.0.1/x.jpg"]
FORBIDDEN = [
    *ODD,
    "http://127.0.0.1:{port}/x.jpg",
    "http://localhost:{port}/x.jpg",
    "http://0.0.0.0:{port}/x.jpg",
    "http://[::1]:{port}/x.jpg",
    "http://[::ffff:127.0.0.1]:{port}/x.jpg",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.1.2.3/x.jpg",
    "http://224.0.0.1/x.jpg",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
]


@pytest.mark.parametrize("by", ["", "/to?url="])
def test_private_addresses_are_not_asked_nor_followed_to(web: HostileWeb, by: str) -> None:
    with hostile_web("127.0.0.1", 0) as inside:
        targets = [address.format(port=inside.port) for address in FORBIDDEN]
        rows = fetched(web, *[by + target for target in targets], connect_timeout_s=0.5)
        codes = dict(zip(targets, [row["code"] for row in rows], strict=True))
        # Odd spellings of an address are no URL to some, and an address to others.
        assert {codes.pop(target) for target in targets if target in ODD} <= {"malformed_url", "forbidden_address"}
        assert set(codes.values()) == {"forbidden_address"} and {row["outcome"] for row in rows} == {"rejected"}
        assert not inside.requests and not inside.connections
        opened = fetched(web, f"http://127.0.0.1:{inside.port}/picture/1.jpg", allow_networks=("127.0.0.1/32",))
        assert opened[0]["outcome"] == "kept" and len(inside.requests) == 1


def test_a_chunk_that_is_none_ends_the_picture(web: HostileWeb) -> None:
    # Whether the client still reads when it comes, or waits for more, is a matter of milliseconds.
    [row] = fetched(web, "/bad-chunk")
    assert row["outcome"] == "failed" and row["code"] in {"bad_http", "timeout", "connection_lost"}


def test_what_follows_the_length_is_not_taken_for_the_next_answer(web: HostileWeb) -> None:
    """More bytes than were announced: what counts was announced, or the answer is none; no other picture suffers."""
    rows = fetched(web, *[path for n in range(30) for path in ("/long", f"/picture/{n}.jpg")], per_host=2)
    announced = sha256(picture(0)[: len(picture(0)) // 2]).hexdigest()
    assert {(row["code"], row["sha256"]) for row in rows[::2]} <= {(None, announced), ("bad_http", None)}
    assert [row["sha256"] for row in rows[1::2]] == [sha256(picture(n)).hexdigest() for n in range(30)]


def test_a_body_that_drips_is_waited_for_no_longer_than_agreed(web: HostileWeb) -> None:
    begun = time.monotonic()
    [row] = fetched(web, "/slow-body", max_bytes=2 * 10**9)
    assert (row["code"], row["retryable"]) == ("timeout", True) and time.monotonic() - begun < 10


LIMITS = {"connect_timeout_s": 60, "first_byte_timeout_s": 60, "timeout_s": 60, "max_bytes": 2 * 10**9}


@pytest.mark.parametrize(
    ("path", "limit", "detail"),
    [
        ("/silent", {"first_byte_timeout_s": 0.5}, "not a byte in time"),
        # Its bytes are 0.2 s apart.
        ("/slow-body", {"first_byte_timeout_s": 0.1}, "not a byte in time"),
        ("/silent", {"timeout_s": 0.5}, "not whole after 0.5 s"),
        ("/slow-body", {"first_byte_timeout_s": 10, "timeout_s": 0.7}, "not whole after 0.7 s"),
    ],
)
def test_a_silence_and_the_whole_have_a_limit_each(
    web: HostileWeb, path: str, limit: dict[str, float], detail: str
) -> None:
    [row] = fetched(web, path, **{**LIMITS, **limit})
    assert (row["code"], row["detail"], row["retryable"]) == ("timeout", detail, True)
    assert row["seconds"] < LIMITS["timeout_s"] / 2


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server that never lets anybody in: Linux does not answer who knocks while the queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield f"http://127.0.0.2:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse who knocks while the queue is full")
def test_who_never_lets_us_in_is_waited_for_as_long_as_a_connection_may_take(web: HostileWeb, deaf: str) -> None:
    [row] = fetched(web, f"{deaf}/x.jpg", **{**LIMITS, "connect_timeout_s": 0.5})
    assert (row["code"], row["outcome"], row["retryable"]) == ("connect_timeout", "failed", True)
    assert row["detail"] == "no connection in time" and row["http_status"] is None
    assert row["seconds"] < LIMITS["timeout_s"] / 2


def test_what_cannot_be_asked_is_said(web: HostileWeb) -> None:
    rows = fetched(web, "http://[", "ftp://a.example/x.jpg", "http://127.0.0.2:1/x.jpg", "http://no-such.invalid/x.jpg")
    codes = [(row["code"], row["outcome"]) for row in rows]
    assert codes[:3] == [("malformed_url", "rejected"), ("unsupported_scheme", "rejected"), ("connect", "failed")]
    # Which of the two depends on whether this machine reaches a name server.
    assert codes[3][0] in {"unknown_host", "dns"} and rows[2]["retryable"]


def test_what_may_pass_is_tried_again(web: HostileWeb) -> None:
    rows = fetched(web, "/flaky/2/1.jpg", "/flaky/3/2.jpg", "/status/404", retries=2)
    assert [row["outcome"] for row in rows] == ["kept", "failed", "failed"]
    assert [row["attempts"] for row in rows] == [3, 3, 1]


def test_a_busy_server_says_when_to_come_back(web: HostileWeb) -> None:
    begun = time.monotonic()
    [row] = fetched(web, "/status/503?retry-after=1", retries=1)
    assert row["attempts"] == 2 and time.monotonic() - begun >= 1
    [row] = fetched(web, "/status/429?retry-after=3600", retries=5)
    assert row["attempts"] == 1 and row["retryable"]
    # The whole host is left alone.
    seen = len(web.requests)
    [row] = fetched(web, "/picture/1.jpg", retries=5)
    assert (row["code"], row["attempts"]) == ("host_busy", 0) and len(web.requests) == seen


def test_a_host_that_is_down_is_not_knocked_at_for_ever(web: HostileWeb) -> None:
    rows = fetched(web, *[f"http://127.0.0.2:1/{number}.jpg" for number in range(40)], per_host=2)
    codes = [row["code"] for row in rows]
    assert set(codes) == {"connect", "host_down"} and codes.count("host_down") >= 28
    assert all(row["retryable"] for row in rows)


@pytest.mark.parametrize("limit", [{"concurrency": 3}, {"per_host": 3}])
def test_no_more_requests_than_agreed_are_under_way(web: HostileWeb, limit: dict[str, int]) -> None:
    rows = fetched(web, *[f"/slow/30/{number}.jpg" for number in range(30)], **limit)
    assert {row["outcome"] for row in rows} == {"kept"}
    assert web.most_at_once == 3 and web.connections <= 3


def test_a_slow_host_does_not_hold_up_another(web: HostileWeb) -> None:
    with hostile_web("127.0.0.3") as slow:
        stuck = [slow.url("/silent?" + str(number)) for number in range(20)]
        quick = [web.url(f"/picture/{number}.jpg") for number in range(40)]
        networks = (f"{web.host}/32", f"{slow.host}/32")
        fetched(web, *stuck, *quick, concurrency=8, per_host=4, allow_networks=networks)
        first_stuck = min(seen.end for seen in slow.requests)
        assert max(seen.start for seen in web.requests) < first_stuck


def test_requests_at_one_host_keep_their_distance(web: HostileWeb) -> None:
    fetched(web, *[f"/picture/{number}.jpg" for number in range(5)], host_delay_s=0.1)
    starts = sorted(seen.start for seen in web.requests)
    assert all(later - earlier >= 0.08 for earlier, later in pairwise(starts))


def test_what_is_said_to_a_server(web: HostileWeb) -> None:
    fetched(web, "/picture/1.jpg", user_agent="some-robot/2.0 (+https://example.org)")
    headers = web.requests[0].headers
    assert headers["user-agent"] == "some-robot/2.0 (+https://example.org)"
    assert headers["accept-encoding"] == "identity" and "cookie" not in headers


def test_who_says_nothing_of_a_name_asks_under_that_of_this_software(web: HostileWeb) -> None:
    """And under no other: neither a browser's, nor a version that this is not."""
    assert [row["outcome"] for row in fetched_under(unspoken(web), web, "/picture/1.jpg")] == ["kept"]
    heard = {seen.headers["user-agent"] for seen in web.requests}
    assert heard == {NetworkConfig().user_agent} and len(web.requests) > 1, "robots.txt is asked under it, too"
    [name] = heard
    word, _, number = name.partition(" ")[0].partition("/")
    assert word == "vlmdata" and version("vlmdata").startswith(f"{number}.")
    assert "mozilla" not in name.lower() and "network.user_agent" in name


LAW = {"obey_robots": True, "obey_headers": True}


def test_who_says_nothing_of_robots_obeys_them(web: HostileWeb) -> None:
    web.robots = (200, b"User-agent: *\nDisallow: /picture/\n")
    rows = fetched_under(unspoken(web), web, "/picture/1.jpg", "/chunked.jpg", "/noai.jpg")
    assert [(row["code"], row["outcome"]) for row in rows] == [
        ("robots", "rejected"),
        (None, "kept"),
        ("x_robots_tag", "rejected"),
    ]
    assert "/picture/1.jpg" not in [seen.path for seen in web.requests]


def test_robots_are_asked_once_and_obeyed(web: HostileWeb) -> None:
    web.robots = (200, b"User-agent: *\nDisallow: /picture/\nAllow: /picture/1.jpg\n")
    rows = fetched(web, "/picture/1.jpg", "/picture/2.jpg", "/chunked.jpg", "/to-relative", **LAW)
    assert [row["code"] for row in rows] == [None, "robots", None, None]
    assert rows[1]["outcome"] == "rejected" and rows[1]["attempts"] == 0
    paths = [seen.path for seen in web.requests]
    assert paths.count("/robots.txt") == 1 and "/picture/2.jpg" not in paths
    assert [row["code"] for row in fetched(web, "/picture/2.jpg")] == [None]


@pytest.mark.parametrize("padding", [600_000, 50_000_000])
def test_of_a_long_robots_file_its_beginning_counts(web: HostileWeb, padding: int) -> None:
    web.robots = (200, b"User-agent: *\nDisallow: /picture/\n" + b"#" * padding + b"\nAllow: /\n")
    rows = fetched(web, "/picture/1.jpg", "/chunked.jpg", **LAW)
    assert [row["code"] for row in rows] == ["robots", None]


def test_a_redirect_does_not_lead_around_robots(web: HostileWeb) -> None:
    web.robots = (200, b"User-agent: vlmdata\nDisallow: /picture/\n")
    rows = fetched(web, "/to-relative", "/to?url=/chunked.jpg", **LAW)
    assert [row["code"] for row in rows] == ["robots", None]


@pytest.mark.parametrize(("status", "code"), [(404, None), (403, None), (500, "robots_unreachable")])
def test_a_host_without_robots_may_be_asked_and_one_that_fails_may_not(
    web: HostileWeb, status: int, code: str | None
) -> None:
    web.robots = (status, b"")
    [row] = fetched(web, "/picture/1.jpg", **LAW)
    assert row["code"] == code and row["retryable"] == (code is not None)


def test_a_crawl_delay_is_kept(web: HostileWeb) -> None:
    web.robots = (200, b"User-agent: *\nCrawl-delay: 0.2\n")
    fetched(web, "/picture/1.jpg", "/picture/2.jpg", "/picture/3.jpg", **LAW)
    starts = sorted(seen.start for seen in web.requests if seen.path.startswith("/picture"))
    assert all(later - earlier >= 0.18 for earlier, later in pairwise(starts))


def test_reservations_are_obeyed_unless_told_otherwise(web: HostileWeb) -> None:
    web.headers["/picture/3.jpg"] = [("X-Robots-Tag", "otherbot: noai")]
    rows = fetched(web, "/noai.jpg", "/tdm.jpg", "/picture/3.jpg", **LAW)
    assert [row["code"] for row in rows] == ["x_robots_tag", "tdm_reservation", None]
    assert [row["outcome"] for row in fetched(web, "/noai.jpg", "/tdm.jpg")] == ["kept", "kept"]


def marked(prohibition: str) -> bytes:
    """A picture whose own metadata says so, in the vocabulary of PLUS."""
    packet = f"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
      xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"
      plus:DataMining="http://ns.useplus.org/ldf/vocab/{prohibition}"/></rdf:RDF>"""
    sink = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(sink, "JPEG", xmp=packet.encode())
    return sink.getvalue()


def page(meta: str) -> bytes:
    """What a server sends instead of a picture."""
    return f"<!doctype html><html><head>{meta}</head><body>Not a picture.</body></html>".encode()


BY_THEMSELVES = {
    "/prohibited.jpg": marked("DMI-PROHIBITED-AIMLTRAINING"),
    "/allowed.jpg": marked("DMI-ALLOWED"),
    "/robots.html": page('<meta name="robots" content="noai, noimageai">'),
    "/tdm.html": page('<meta name="tdm-reservation" content="1">'),
    "/plain.html": page('<meta name="robots" content="index, follow">'),
}
PICTURES = ["/prohibited.jpg", "/allowed.jpg"]


def test_what_a_picture_or_a_page_says_of_itself_is_obeyed(web: HostileWeb) -> None:
    web.pictures.update(BY_THEMSELVES)
    rows = fetched(web, *BY_THEMSELVES, obey_headers=True)
    ends = {path: (row["code"], row["outcome"]) for path, row in zip(BY_THEMSELVES, rows, strict=True)}
    assert ends == {
        "/prohibited.jpg": ("tdm_reservation", "rejected"),
        "/allowed.jpg": (None, "kept"),
        "/robots.html": ("x_robots_tag", "rejected"),
        "/tdm.html": ("tdm_reservation", "rejected"),
        "/plain.html": ("web_page", "failed"),
    }
    details = [row["detail"] for row in rows if row["outcome"] == "rejected"]
    assert details == ["the picture's own metadata reserves it", *["a web page that reserves itself"] * 2]
    assert not any(row["retryable"] for row in rows)


def test_what_they_say_of_themselves_is_not_looked_for_if_nobody_wants_it(web: HostileWeb) -> None:
    web.pictures.update(BY_THEMSELVES)
    rows = dict(zip(BY_THEMSELVES, fetched(web, *BY_THEMSELVES, obey_headers=False), strict=True))
    assert [rows.pop(path)["sha256"] for path in PICTURES] == [
        sha256(BY_THEMSELVES[path]).hexdigest() for path in PICTURES
    ]
    assert {(row["code"], row["outcome"]) for row in rows.values()} == {("web_page", "failed")}


def test_a_hosts_tdm_file_is_obeyed(web: HostileWeb) -> None:
    web.tdmrep = (200, b'[{"location": "/picture/*", "tdm-reservation": 1}]')
    rows = fetched(web, "/picture/1.jpg", "/chunked.jpg", **LAW)
    assert [row["code"] for row in rows] == ["tdm_reservation", None]


def test_who_opted_out_is_not_asked(web: HostileWeb, tmp_path: Any) -> None:
    file = tmp_path / "left-alone.txt"
    file.write_text(f"{web.url('/picture/1.jpg')}\nsha256:{sha256(picture(2)).hexdigest()}\nexample.org\n")
    paths = ["/picture/1.jpg", "/picture/2.jpg", "/picture/3.jpg", "http://img.example.org/a.jpg"]
    rows = fetched(web, *paths, opt_out=OptOut.read(str(file)))
    assert [row["code"] for row in rows] == ["opted_out", "opted_out", None, "opted_out"]
    assert "/picture/1.jpg" not in [seen.path for seen in web.requests]
    # A redirect does not lead there either.
    [row] = fetched(web, "/to?url=/picture/1.jpg", opt_out=OptOut.read(str(file)))
    assert row["code"] == "opted_out"


def test_a_digest_that_was_asked_for_is_checked(web: HostileWeb) -> None:
    kinds = (hashlib.md5, hashlib.sha256, hashlib.sha512)
    urls = [web.url(f"/picture/{number}.jpg") for number in (1, 2) for _ in kinds]
    wanted = [kind(picture(1)).hexdigest() for kind in kinds] * 2
    rows = filled(LISTING, len(urls), key=pa.array(urls), url=pa.array(urls), missing=False, sha256=pa.array(wanted))
    [reading] = fetch_rows(network(web), NOBODY, rows)
    assert reading.fetches is not None
    assert reading.fetches["code"].to_pylist() == [None] * 3 + ["hash_mismatch"] * 3
    details = reading.fetches["detail"].to_pylist()[3:]
    assert [detail.split()[1] for detail in details] == ["md5", "sha256", "sha512"]


def test_a_full_disk_ends_all_of_it_in_one_line(web: HostileWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    left, write = [5], os.pwritev

    def full(file: int, parts: Sequence[bytes], at: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, parts, at)

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr("vlmdata.ingest.web.spill._TOGETHER", 1)
    with pytest.raises(StoreError, match=r"no space left .* set TMPDIR to another folder$") as told:
        fetched(web, *[f"/slow/20/{number}.jpg" for number in range(40)], per_host=4)
    assert "\n" not in str(told.value) and len(web.requests) < 40, "nobody else is asked"
    monkeypatch.undo()
    assert [row["outcome"] for row in fetched(web, "/picture/1.jpg")] == ["kept"]


def test_connections_are_used_again(web: HostileWeb) -> None:
    rows = fetched(web, *["/picture/1.jpg"] * 100, per_host=4)
    assert {row["outcome"] for row in rows} == {"kept"} and web.connections <= 4


@pytest.fixture
def untrusted(tmp_path: Any) -> Iterator[str]:
    """An https server whose certificate nobody signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.2", "-addext", "subjectAltName=IP:127.0.0.2"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.2", 0), SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.2:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_server_that_cannot_be_trusted_is_not_asked(web: HostileWeb, untrusted: str) -> None:
    plain = ThreadingHTTPServer(("127.0.0.2", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=plain.serve_forever)
    thread.start()
    rows = fetched(web, f"{untrusted}/a.jpg", f"https://127.0.0.2:{plain.server_port}/a.jpg")
    plain.shutdown()
    thread.join()
    plain.server_close()
    assert [(row["code"], row["outcome"], row["retryable"]) for row in rows] == [
        ("certificate", "failed", False),
        ("tls", "failed", False),
    ]
