"""Addresses, keys, and what people get wrong about them."""

from __future__ import annotations

import pytest

from vlmdata.captioning.endpoint import Endpoint, check_caption_config, endpoint_of, is_loopback
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError

REMOTE = "https://api.example.com/v1"
SECRET = "sk-abcdefghijklmnop"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_preflight_lets_pass_what_may_never_be_asked() -> None:
    check_caption_config(CaptionConfig())
    check_caption_config(CaptionConfig(policy="none", base_url=REMOTE))
    check_caption_config(CaptionConfig(base_url="http://127.0.0.1:8000/v1"))


def test_a_hosted_api_wants_its_key_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CaptionConfig(base_url=REMOTE, api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        check_caption_config(config)
    monkeypatch.setenv("MY_KEY", f" {SECRET}\n")
    check_caption_config(config)
    assert endpoint_of(config.model_copy(update={"model": "m"}), 1).key == SECRET


@pytest.mark.parametrize("missing", ["base_url", "model"])
def test_what_is_missing_is_named(missing: str) -> None:
    given = {"base_url": "http://localhost:1/v1", "model": "m", missing: None}
    with pytest.raises(ConfigError, match=rf"caption\.{missing} is not set, and 7 pictures"):
        endpoint_of(CaptionConfig.model_validate(given), 7)


@pytest.mark.parametrize(
    "url", ["api.example.com/v1", "ftp://localhost/v1", "http://", "http://[::1/v1", "http://localhost:99999/v1", ""]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"caption\.base_url"):
        check_caption_config(CaptionConfig(base_url=url))


@pytest.mark.parametrize(
    "url", [f"https://me:{SECRET}@localhost/v1", f"ftp://me:{SECRET}@localhost", f"http://localhost/v1?key={SECRET}"]
)
def test_a_secret_in_the_address_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_caption_config(CaptionConfig(base_url=url))
    assert SECRET not in str(caught.value)


def test_a_full_path_is_put_right() -> None:
    with pytest.raises(ConfigError, match="leave out /chat/completions"):
        check_caption_config(CaptionConfig(base_url="http://localhost:1/v1/chat/completions"))


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(ConfigError) as caught:
        check_caption_config(CaptionConfig(base_url=REMOTE))
    assert "sk-" not in str(caught.value)


def test_masking() -> None:
    endpoint = Endpoint(REMOTE, "OPENAI_API_KEY", "s3cret-of-mine")
    assert endpoint.mask("bad key s3cret-of-mine,\n sk-other-key-1234; Bearer xyz") == "bad key ***, ***; Bearer ***"
    assert "s3cret" not in repr(endpoint)
    # A word in place of a key must not punch holes into messages.
    assert Endpoint(REMOTE, "K", "none").mask("none of it") == "none of it"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://localhost/v1", True),
        ("http://localhost.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://192.168.0.2/v1", False),
    ],
)
def test_loopback(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
