"""robots.txt and tdmrep.json in all their forms."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL as Address

from vlmdata.ingest.web.robots import product, read_robots, read_tdmrep

US = "vlmdata/0.1 (about us)"
URL = "http://a.example/p/1.jpg"


def allowed(text: str | bytes, url: str = URL, status: int = 200) -> bool:
    return read_robots(status, text.encode() if isinstance(text, str) else text, US).allows(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("User-agent: *\nDisallow: /", False),
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /p/", False),
        ("User-agent: *\nDisallow: /q/", True),
        ("user-AGENT: *\r\ndisallow: /p\r\n", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: vlmdata\nAllow: /", True),
        ("User-agent: *\nAllow: /\n\nUser-agent: VLMdata\nDisallow: /", False),
        ("User-agent: otherbot\nDisallow: /", True),
        ("User-agent: otherbot\nUser-agent: vlmdata\nDisallow: /", False),
        ("User-agent: *\nDisallow: /p/\nAllow: /p/1.jpg", True),
        ("User-agent: *\nDisallow: /*.jpg$", False),
        ("User-agent: *\nDisallow: /*.png$", True),
        ("User-agent: *  # all\nDisallow: /p # those", False),
        ("<html><body>Disallow: /</body></html>", True),
    ],
)
def test_what_a_file_says(text: str, expected: bool) -> None:
    assert allowed(text) is expected


@pytest.mark.parametrize(
    ("status", "unknown", "allows"),
    [(200, False, False), (404, False, True), (403, False, True), (401, False, True)]
    + [(status, True, False) for status in (429, 500, 503, 301, 0, None)],
)
def test_what_an_answer_means(status: int | None, unknown: bool, allows: bool) -> None:
    robots = read_robots(status, b"User-agent: *\nDisallow: /", US)
    assert (robots.unknown, robots.allows(URL)) == (unknown, allows)


def test_a_delay_is_told() -> None:
    assert read_robots(200, b"User-agent: *\nCrawl-delay: 2.5", US).delay_s == 2.5
    assert read_robots(200, b"User-agent: *\nCrawl-delay: -1", US).delay_s is None
    assert read_robots(404, b"", US).delay_s is None


@given(st.binary(max_size=2000))
def test_any_bytes_are_read(body: bytes) -> None:
    for noise in (body, b"User-agent: *\nDisallow: " + body + b"\nCrawl-delay: " + body):
        assert read_robots(200, noise, US).allows(URL) in {True, False}


def test_a_long_file_of_wild_patterns_does_not_take_for_ever() -> None:
    wild = "User-agent: *\n" + "".join(f"Disallow: /*a*b*c*{n}*d*e$\n" for n in range(2000))
    assert allowed(wild, "http://a.example/" + "abc" * 200)


@pytest.mark.parametrize(
    ("agent", "name"), [("vlmdata/0.1 (x)", "vlmdata"), ("Some-Robot", "Some-Robot"), (" a b/1", "a")]
)
def test_the_word_before_the_slash_is_our_name(agent: str, name: str) -> None:
    assert product(agent) == name


def reserves(entries: Any, url: str = URL) -> bool:
    return read_tdmrep(200, json.dumps(entries).encode()).reserves(url)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], False),
        ([{"location": "/", "tdm-reservation": 1}], True),
        ([{"location": "/p/*", "tdm-reservation": 1}], True),
        ([{"location": "/q/*", "tdm-reservation": 1}], False),
        ([{"location": "/p/", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], False),
        ([{"location": "/*.jpg$", "tdm-reservation": 1}], True),
        ([{"location": "/*.jpeg$", "tdm-reservation": 1}], False),
        ({"location": "/", "tdm-reservation": 1}, True),
        ([{"location": 3, "tdm-reservation": 1}, None, "x", {"location": "/"}], False),
    ],
)
def test_what_a_host_reserves(entries: Any, expected: bool) -> None:
    assert reserves(entries) is expected


@given(st.binary(max_size=300), st.sampled_from([200, 404, 500, None]))
def test_a_broken_file_reserves_nothing_and_breaks_nothing(body: bytes, status: int | None) -> None:
    assert read_tdmrep(status, body).reserves(URL) in {True, False}
    assert not read_tdmrep(404, b'[{"location": "/", "tdm-reservation": 1}]').reserves(URL)


def test_patterns_of_stars_are_matched_in_time() -> None:
    pattern = {"location": "/" + "*a" * 40 + "$", "tdm-reservation": 1}
    assert not reserves([pattern], "http://a.example/" + "a" * 2000 + "b")


ALL_BUT_US = "User-agent: *\nAllow: /\nUser-agent: {}\nDisallow: /\n"
NONE_BUT_US = "User-agent: *\nDisallow: /\nUser-agent: {}\nDisallow:\n"


@pytest.mark.parametrize("name", ["vlmdata", "VLMdata", "vlmdata/2.0", "vlmdata/1 (old)", "vlmdata # us", "\tvlmdata"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_group_that_names_us_wins_whatever_version_it_names(name: str, end: str) -> None:
    assert not allowed(ALL_BUT_US.format(name).replace("\n", end))
    assert allowed(NONE_BUT_US.format(name).replace("\n", end))


@pytest.mark.parametrize("name", ["vlm", "data", "v", "vlmdata-image", "vlmdatabot", "GPTBot", "other/vlmdata"])
def test_a_group_for_another_robot_is_not_for_us(name: str) -> None:
    assert allowed(ALL_BUT_US.format(name)) and not allowed(NONE_BUT_US.format(name))


def test_our_groups_are_one_however_many_pieces_they_come_in() -> None:
    text = "User-agent: GPTBot\nUser-agent: vlmdata\nDisallow: /a\n\nUser-agent: *\nDisallow: /\nCrawl-delay: 9\n\n"
    text += "User-agent: vlmdata/3\nDisallow: /b\n"
    answers = [allowed(text, f"http://a.example{path}") for path in ("/a", "/b", "/c")]
    assert answers == [False, False, True] and read_robots(200, text.encode(), US).delay_s is None


OURS = ["User-agent: *", "User-agent: vlmdata", "Disallow: /a", "Allow: /a/b", "Crawl-delay: 2", "nonsense", ""]
OTHERS = "User-agent: GPTBot\nUser-agent: vlm\nDisallow: /\nCrawl-delay: 7\n"


@given(st.lists(st.sampled_from(OURS)))
def test_what_is_said_to_other_robots_changes_nothing(lines: list[str]) -> None:
    ours = "\n".join(["User-agent: *", *lines, "Allow: /z", ""])
    alone, among = (read_robots(200, text.encode(), US) for text in (ours, OTHERS + ours + OTHERS))
    assert alone.delay_s == among.delay_s
    for path in ("/a", "/a/b/c", "/z", "/"):
        assert alone.allows("http://a.example" + path) == among.allows("http://a.example" + path)


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("Disallow: /a\nAllow: /a", "/a/x", True),
        ("Disallow: /a", "/A", True),
        ("Disallow: /*.jpg$", "/x.jpg?w=1", True),
        ("Disallow: /*?", "/x?w=1", False),
        ("Disallow: /caf%C3%A9", "/caf%C3%A9/x", False),
        ("Disallow: /café", "/caf%C3%A9/x", False),
        ("Nonsense: /\nDisallow: /a", "/a", False),
    ],
)
def test_the_longest_rule_that_fits_decides(rule: str, path: str, expected: bool) -> None:
    assert allowed(f"User-agent: *\n{rule}\n", f"http://a.example{path}") is expected


@pytest.mark.parametrize("delay", ["", "soon", "nan", "inf", "0"])
def test_a_delay_that_is_none_counts_as_none(delay: str) -> None:
    assert read_robots(200, f"User-agent: *\nCrawl-delay: {delay}\n".encode(), US).delay_s is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_hides_nothing(encoding: str) -> None:
    mark = "\ufeff" if encoding.startswith("utf-16-") else ""
    assert not allowed((mark + "User-agent: *\nDisallow: /\n").encode(encoding))


def test_the_rule_that_the_limit_cuts_in_two_is_left_out() -> None:
    head = b"User-agent: *\nDisallow: /p/\n"
    # Cut after `/p/`, the last rule would allow what the first forbids.
    fill = b"#" * (512 * 1024 - len(head) - 1 - len(b"Allow: /p/")) + b"\n"
    assert not allowed(head + fill + b"Allow: /p/other.jpg\n" * 2)


def test_a_file_of_any_size_is_read() -> None:
    blanks = b"User-agent: *\nDisallow: /p\nuser-agent" + b" \t" * 200_000
    assert not allowed(blanks) and allowed(blanks, "http://a.example/q")
    many = b"User-agent: *\n" + b"".join(b"Disallow: /p%d/\n" % number for number in range(30_000))
    assert not allowed(many, "http://a.example/p7/x") and allowed(many)


@given(st.binary(max_size=200), st.text("ab/*$%4a .?=\u00e9", max_size=12))
@example(b"\xff\xfe\x00", "/")
@example(b"\x00\nAllow: \xff$$", "/\u00e9")
def test_any_address_gets_an_answer(body: bytes, path: str) -> None:
    url = str(Address(f"http://a.example/{path}"))
    assert allowed(body, url) in {True, False} and allowed(b"User-agent: *\nDisallow: " + body, url) in {True, False}


def rule(location: str, value: Any = 1) -> dict[str, Any]:
    return {"location": location, "tdm-reservation": value}


@pytest.mark.parametrize(
    ("location", "path", "expected"),
    [
        ("*", "/x.jpg", True),
        ("/images/*.jpg", "/images/2/x.jpg.png", True),
        ("/images/*.jpg$", "/images/x.jpg.png", False),
        ("/images/*.jpg$", "/images/x.jpg.jpg", True),
        ("/exactly$", "/exactly", True),
        ("/exactly$", "/exactly/not", False),
        ("/Case", "/case", False),
        ("/path/foo-%24", "/path/foo-$", True),
        ("/a%2Ab", "/axb", False),
        ("/café/", "/caf%C3%A9/x", True),
        ("/caf%C3%A9/", "/café/x", True),
        ("/*?w=", "/x.jpg?w=1", True),
        ("/a*a$", "/a", False),
        ("/a(b", "/a(b", True),
    ],
)
def test_a_location_is_a_pattern_as_in_robots_txt(location: str, path: str, expected: bool) -> None:
    assert reserves([rule(location)], "http://a.example" + path) is expected


def test_the_first_location_that_fits_decides() -> None:
    rules = [rule("/images/*.jpg", 0), rule("/images/"), rule("/", 0)]
    paths = ("/images/x.jpg", "/images/x.png", "/x")
    assert [reserves(rules, "http://a.example" + path) for path in paths] == [False, True, False]


@pytest.mark.parametrize(("value", "expected"), [(1, True), ("1", True), (0, False), (2, False), (None, False)])
def test_other_values_than_one_reserve_nothing(value: Any, expected: bool) -> None:
    assert reserves([rule("/", value)]) is expected


@pytest.mark.parametrize(
    "body", [b"", b"null", b"3", b"[[[" * 50_000, b"1" * 10_000, b"\xff\xfe", b'{"location": "/"}']
)
def test_a_file_that_is_no_list_of_rules_reserves_nothing(body: bytes) -> None:
    assert not read_tdmrep(200, body).reserves(URL)


def test_a_broken_rule_does_not_take_the_others_with_it() -> None:
    rules = [None, 3, [], {}, {"location": 3, "tdm-reservation": 1}, {"tdm-reservation": 1}, rule("/a")]
    assert reserves(rules, "http://a.example/a") and not reserves(rules)


def test_a_patterns_stars_cost_no_more_than_its_length() -> None:
    # By backtracking, this would take longer than anybody waits.
    url = "http://a.example/" + "a" * 4000
    assert not reserves([rule("/" + "*a" * 500 + "*b$")], url) and reserves([rule("/" + "*a" * 500 + "$")], url)


@given(st.text("ab*$/", max_size=8), st.text("ab/", max_size=8))
def test_a_location_covers_what_its_pattern_says(location: str, path: str) -> None:
    says = re.escape(location.removesuffix("$")).replace(r"\*", ".*") + (r"\Z" if location.endswith("$") else "")
    expected = re.match(says, Address(f"http://a.example/{path}").raw_path) is not None
    assert reserves([rule(location)], f"http://a.example/{path}") is expected
