"""Who is on the opt-out list is left alone, and a list that cannot be read is said so."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from vlmdata.errors import ConfigError
from vlmdata.opt_out import _PLAIN, OptOut, _normal

DIGEST = sha256(b"a picture").hexdigest()
LIST = f"""\ufeff# Who wrote to us.
example.com
  img.example.org   # since May
BÜCHER.example
https://a.example/Photo%201.jpg?w=1&h=2
http://a.example:80/x/../b.jpg#top

sha256:{DIGEST.upper()}
phash:ffffffffffffffff
phash:00000000000000Ab
"""


def opt_out(folder: Path, text: str) -> OptOut:
    file = folder / "left-alone.txt"
    file.write_text(text, encoding="utf-8")
    return OptOut.read(str(file))


def test_no_list_refuses_nothing() -> None:
    nobody = OptOut.read(None)
    assert not nobody and not nobody.refuses_url("https://example.com/x") and not nobody.refuses_digest(DIGEST)
    assert len(nobody.phashes) == 0 and nobody.phashes.dtype == np.uint64


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n   # yet\n"])
def test_a_list_of_nobody_is_no_list(tmp_path: Path, text: str) -> None:
    assert not opt_out(tmp_path, text) and opt_out(tmp_path, text).digest == OptOut.read(None).digest


REFUSED = [
    "https://example.com/x.jpg",
    "http://EXAMPLE.com:8080/",
    "http://example.com./x",
    "https://a.b.example.com/x?y#z",
    "https://img.example.org/x",
    "https://bücher.example/x",
    "https://www.xn--bcher-kva.example/x",
    "https://a.example/Photo 1.jpg?w=1&h=2",
    "https://A.example/Photo%201.jpg?w=1&h=2#part",
    "http://a.example/b.jpg",
]
FREE = [
    "https://example.org/x",
    "https://notexample.com/x",
    "https://example.com.evil.example/x",
    "https://a.example/example.com",
    "https://a.example/photo%201.jpg?w=1&h=2",
    "https://a.example/Photo%201.jpg",
    "https://a.example/b.jpg",
    "https://user:example.com@a.example/",
    "not an address",
    "http://[",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_domain_all_below_it_and_an_address_are_refused(tmp_path: Path, url: str) -> None:
    assert opt_out(tmp_path, LIST).refuses_url(url)


@pytest.mark.parametrize("url", FREE)
def test_others_are_not(tmp_path: Path, url: str) -> None:
    assert not opt_out(tmp_path, LIST).refuses_url(url)


def test_digests_and_hashes_are_read_in_either_case(tmp_path: Path) -> None:
    found = opt_out(tmp_path, LIST)
    assert found and found.refuses_digest(DIGEST) and not found.refuses_digest(sha256(b"another").hexdigest())
    assert found.phashes.dtype == np.uint64 and found.phashes.tolist() == [0xAB, 2**64 - 1]


ENTRIES = ["example.com", "b.example", "https://a.example/x", f"sha256:{DIGEST}", "phash:" + "0f" * 8]


@given(st.permutations(ENTRIES), st.lists(st.sampled_from(["", "# why", *ENTRIES])))
def test_order_comments_and_repeats_do_not_change_the_digest(
    tmp_path_factory: pytest.TempPathFactory, entries: list[str], more: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    plain = opt_out(folder, "\n".join(ENTRIES)).digest
    os.remove(folder / "left-alone.txt")
    mixed = opt_out(folder, "# another order\n" + "\n".join([*more, *entries]) + "\n")
    assert mixed.digest == plain and mixed.phashes.tolist() == [0x0F0F0F0F0F0F0F0F]


@given(st.sets(st.sampled_from(ENTRIES)), st.sets(st.sampled_from(ENTRIES)))
def test_other_entries_have_another_digest(
    tmp_path_factory: pytest.TempPathFactory, one: set[str], other: set[str]
) -> None:
    left, right = (opt_out(tmp_path_factory.mktemp("list"), "\n".join(sorted(entries))) for entries in (one, other))
    assert (left.digest == right.digest) is (one == other)


BAD = [
    "*.example.com",
    "a..b",
    "two words",
    "ftp://a.example/x",
    "http://",
    "http://[",
    "mailto:me@example.com",
    "sha256:abc",
    "sha256:" + "g" * 64,
    "sha256:" + "0" * 65,
    "phash:0123",
    "/etc/passwd",
]


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opt_out(tmp_path, f"# the list\nexample.com\n{line}\nexample.org\n")
    message = str(caught.value)
    assert "left-alone.txt" in message and "line 3" in message and "\n" not in message and line[:80] in message


def test_a_list_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.txt"
    damaged.write_bytes(b"example.com\n\xff\xfe\xfa\n")
    for path, why in [(tmp_path / "absent.txt", "No such file"), (tmp_path, "directory"), (damaged, "UTF-8")]:
        with pytest.raises(ConfigError, match=why) as caught:
            OptOut.read(str(path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_list_is_read_again_when_it_changes(tmp_path: Path) -> None:
    first = opt_out(tmp_path, "example.com\n")
    assert OptOut.read(str(tmp_path / "left-alone.txt")) is first
    second = opt_out(tmp_path, "example.com\nexample.org\n")
    assert second.refuses_url("https://example.org/x") and not first.refuses_url("https://example.org/x")


@given(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){1,3}", fullmatch=True), st.from_regex(r"[a-z]{1,5}", fullmatch=True))
def test_what_is_below_a_domain_is_refused_and_what_merely_ends_like_it_is_not(
    tmp_path_factory: pytest.TempPathFactory, domain: str, word: str
) -> None:
    found = opt_out(tmp_path_factory.mktemp("list"), domain)
    assert found.refuses_url(f"https://{domain}/") and found.refuses_url(f"https://{word}.{domain}/")
    assert not found.refuses_url(f"https://{word}{domain}/") and not found.refuses_url(f"https://{domain}.{word}q/")


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("http://a.com/x.jpg # they asked", "http://a.com/x.jpg"),
        ("http://a.com/x.jpg\t#y", "http://a.com/x.jpg"),
        ("a.com # see https://b.example/", "http://a.com/1"),
        ("HTTP://A.com/x", "http://a.com/x"),
        ("http://a.com", "http://a.com/"),
        ("http://a.com/", "http://a.com"),
        ("http://a.com/x", "http://u:p@a.com/x"),
        ("http://a.com/x#frag", "http://a.com/x"),
        ("http://a.com/a%20b?q=%2F1", "http://a.com/a b?q=%2F1#z"),
        ("localhost", "http://localhost/x"),
    ],
)
def test_however_an_address_is_written(tmp_path: Path, line: str, url: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n")
    assert OptOut.read(str(tmp_path / "list.txt")).refuses_url(url)


@pytest.mark.parametrize(
    "line", ["md5:" + "0" * 32, "example.com:8080", "example.com?x", "http://a.com/x y", "a.com#b", "a.com b.com"]
)
def test_what_is_none_of_the_four_is_said(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"list.txt line 1: "):
        OptOut.read(str(tmp_path / "list.txt"))


@given(st.from_regex(_PLAIN, fullmatch=True))
def test_what_is_taken_for_a_normal_form_is_one(text: str) -> None:
    assert _normal(URL(text)) == text
