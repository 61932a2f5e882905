"""A word against training is found wherever it stands; one for other robots, or about something else, is none."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from PIL import Image, PngImagePlugin

from vlmdata.ingest.web.reserved import reserved_by_headers, reserved_by_metadata, reserved_by_page

AGENT = "some-robot/2.0 (+https://example.org)"


def tags(*values: str) -> CIMultiDictProxy[str]:
    """As aiohttp gives the headers of an answer."""
    return CIMultiDictProxy(CIMultiDict([("x-robots-tag", value) for value in values]))


FOR_US = [
    "noai",
    "noimageai",
    "noindex",
    "noimageindex",
    "none",
    "NoAI",
    " noai ",
    "nofollow, noai",
    "nofollow,noimageai",
    "some-robot: noai",
    "Some-Robot: nofollow, noai",
    "some-robot/2.0: noai",
    "*: noai",
    "otherbot: nofollow, some-robot: noai",
    "noai, otherbot: nofollow",
    "max-snippet: 3, noai",
    "unavailable_after: 25 Jun 2030 15:00:00 PST, noai",
    "unavailable_after: Tue, 25 Jun 2030 15:00:00 GMT, noai",
]
NOT_FOR_US = [
    "",
    ",",
    ":",
    "all",
    "nofollow",
    "noarchive, nosnippet",
    "noaim",
    "otherbot: noai",
    "otherbot: nofollow, noai",
    "some: noai",
    "some-robot: nofollow, otherbot: noai",
    "some-robot: nofollow",
    "max-image-preview: none",
    "unavailable_after: noai",
]


@pytest.mark.parametrize("value", FOR_US)
def test_a_robots_tag_for_us_reserves(value: str) -> None:
    assert reserved_by_headers(tags(value), AGENT) == "x_robots_tag"
    assert reserved_by_headers({"X-ROBOTS-TAG": value}, AGENT) == "x_robots_tag"


@pytest.mark.parametrize("value", NOT_FOR_US)
def test_a_robots_tag_for_others_or_of_other_words_does_not(value: str) -> None:
    assert reserved_by_headers(tags(value), AGENT) is None


def test_every_one_of_several_headers_counts() -> None:
    assert reserved_by_headers(tags("otherbot: nofollow", "noai"), AGENT) == "x_robots_tag"
    assert reserved_by_headers(tags("otherbot: noai", "nofollow"), AGENT) is None
    assert reserved_by_headers(tags(), AGENT) is None and reserved_by_headers({}, AGENT) is None


@pytest.mark.parametrize(("value", "code"), [("1", "tdm_reservation"), (" 1 ", "tdm_reservation"), ("0", None)])
def test_a_header_of_the_tdm_protocol_reserves(value: str, code: str | None) -> None:
    assert reserved_by_headers({"TDM-Reservation": value}, AGENT) == code
    assert reserved_by_headers(CIMultiDict([("tdm-reservation", "0"), ("TDM-RESERVATION", value)]), AGENT) == code


@pytest.mark.parametrize("value", ["", "2", "10", "yes", "true"])
def test_other_values_are_none(value: str) -> None:
    assert reserved_by_headers({"tdm-reservation": value}, AGENT) is None


@given(st.text(), st.text(max_size=20))
def test_whatever_a_header_says_an_answer_comes(value: str, agent: str) -> None:
    found = reserved_by_headers(tags(value), agent)
    assert found in {None, "x_robots_tag"} and (found is None or "no" in value.lower())


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
PLUS = "http://ns.useplus.org/ldf/vocab/"
WRAPPED = '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">{}</x:xmpmeta>'


def xmp(attributes: str = "", inside: str = "", wrapper: str = WRAPPED) -> bytes:
    rdf = f"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
      xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:tdm="http://www.w3.org/ns/tdmrep#"
      xmlns:t="http://www.w3.org/ns/tdmrep#" {attributes}>{inside}</rdf:Description></rdf:RDF>"""
    return wrapper.format(rdf).encode()


def saved(form: str, packet: bytes) -> bytes:
    file = io.BytesIO()
    if form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        PICTURE.save(file, form, pnginfo=info)
    elif form == "TIFF":
        PICTURE.save(file, form, tiffinfo={700: packet})
    else:
        PICTURE.save(file, form, xmp=packet)
    return file.getvalue()


PROHIBITING = {
    "attribute": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED"'),
    "element": xmp(inside=f"<plus:DataMining>{PLUS}DMI-PROHIBITED-AIMLTRAINING</plus:DataMining>"),
    "resource": xmp(inside=f'<plus:DataMining rdf:resource="{PLUS}DMI-PROHIBITED-GENAIMLTRAINING"/>'),
    "search": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"'),
    "constraint": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED-SEECONSTRAINT" plus:OtherConstraints="ask me"'),
    "bare": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED"', wrapper="{}"),
    "tdm": xmp('tdm:reservation="1"'),
    "tdm element": xmp(inside="<tdm:reservation>\n 1\n</tdm:reservation>"),
    "tdm short": xmp("tdm:reserve = '1'"),
    "tdm dashed": xmp(inside='<tdm:meta name="tdm-reservation">1</tdm:meta>'),
    "other prefix": xmp('t:reservation="1"'),
}
OTHERWISE = {
    "nothing": xmp(),
    "allowed": xmp(f'plus:DataMining="{PLUS}DMI-ALLOWED"'),
    "unspecified": xmp(f'plus:DataMining="{PLUS}DMI-UNSPECIFIED"'),
    "tdm not reserved": xmp('tdm:reservation="0"'),
    "tdm ten": xmp('tdm:reservation="10"'),
    "policy": xmp('tdm:policy="https://a.example/1"'),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("what", PROHIBITING)
def test_metadata_that_prohibits_mining_reserves(what: str, form: str) -> None:
    assert reserved_by_metadata(saved(form, PROHIBITING[what])) == "tdm_reservation"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("what", OTHERWISE)
def test_other_metadata_does_not(what: str, form: str) -> None:
    assert reserved_by_metadata(saved(form, OTHERWISE[what])) is None


def test_every_packet_is_read_and_nothing_beside_them() -> None:
    data = saved("JPEG", OTHERWISE["nothing"])
    assert reserved_by_metadata(data + PROHIBITING["tdm"]) == "tdm_reservation"
    # A caption may speak of it.
    assert reserved_by_metadata(data + b"DMI-PROHIBITED tdm:reservation='1'") is None
    assert reserved_by_metadata(saved("JPEG", PROHIBITING["element"])[:1000]) == "tdm_reservation"


PAGES: list[tuple[bytes, str | None]] = [
    (b'<html><head><meta name="robots" content="noai, noimageai"></head>', "x_robots_tag"),
    (b"<META content='nofollow,NOAI' NAME = 'Robots' />", "x_robots_tag"),
    (b"<meta name=robots content=noai>", "x_robots_tag"),
    (b'<meta\nname="robots"\ncontent="noindex"\n>', "x_robots_tag"),
    (b'<meta name="tdm-reservation" content="1">', "tdm_reservation"),
    (b'<meta content=1 name="TDM-Reservation"/>', "tdm_reservation"),
    (b'<meta name="tdm-reservation" content="0">', None),
    (b'<meta name="robots" content="index, follow">', None),
    (b'<meta name="robots">', None),
    (b'<meta name="description" content="noai">', None),
    (b'<meta property="robots" content="noai">', None),
    (b'<metadata name="robots" content="noai">', None),
    (b'<p>meta name="robots" content="noai"</p>', None),
    (b"", None),
]


@pytest.mark.parametrize(("html", "code"), PAGES)
def test_a_page_reserves_itself_by_its_meta(html: bytes, code: str | None) -> None:
    assert reserved_by_page(b"<!doctype html>\xef\xbb\xbf\xff" + html) == code


def test_a_pages_beginning_is_what_is_read() -> None:
    meta = b'<meta name="robots" content="noai">'
    assert reserved_by_page(b" " * 60_000 + meta) == "x_robots_tag" and reserved_by_page(b" " * 70_000 + meta) is None


@pytest.mark.parametrize(
    "part", [b"<", b"<meta", b"<meta ", b"<!--", b"<a b='", b'<meta a="', b"<meta a=", b"x-", b"<![x["]
)
def test_a_page_that_never_closes_what_it_opens_is_read(part: bytes) -> None:
    assert reserved_by_page(part * 70_000) is None
    assert reserved_by_page(b'<meta name="robots" content="noai">' + part * 70_000) == "x_robots_tag"


@pytest.mark.parametrize("part", [b":reserve", b"tdm:reserv", b" ", b"tdm:reserve ", b"tdm:reserve= "])
def test_metadata_that_repeats_itself_is_read(part: bytes) -> None:
    packet = xmp(inside=(part * 40_000).decode())
    assert reserved_by_metadata(packet) is None and reserved_by_metadata(packet + PROHIBITING["tdm"]) is not None


@pytest.mark.parametrize("read", [reserved_by_metadata, reserved_by_page])
@given(data=st.binary(max_size=300))
@example(data=b"<![x[ a ]]>")
@example(data=b"<meta \xff='\xfe' name=")
def test_whatever_the_bytes_an_answer_comes(read: Callable[[bytes], Any], data: bytes) -> None:
    assert read(b"<meta " + data) in {None, "x_robots_tag", "tdm_reservation"}
    assert read(PROHIBITING["tdm"] + data if read is reserved_by_metadata else PAGES[0][0] + data) is not None
