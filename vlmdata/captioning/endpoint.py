"""Where captions are asked for and with which key; what a person got wrong about either is said in one line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError

_MASK = "***"
_SHORTEST_KEY = 8
_LOOKS_SECRET = re.compile(
    r"(?i)(?<=bearer )\S+|\b(?:sk|pk|key|hf)[-_][\w*-]{8,}"
    r"|(?<=X-Amz-Signature=)[^&\s]+|(?<=X-Amz-Credential=)[^&\s]+|(?<=X-Amz-Security-Token=)[^&\s]+"
)


@dataclass(frozen=True)
class Endpoint:
    """An API's base URL, and the key that it is asked with."""

    base_url: str
    key_variable: str
    key: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        """On this machine: needs no key, and no proxy stands between."""
        return is_loopback(self.base_url)

    def without_key(self, text: str) -> str:
        """The text without our key, should a server repeat it; a short one is a mere word."""
        return text.replace(self.key, _MASK) if self.key and len(self.key) >= _SHORTEST_KEY else text

    def scrubbed(self, reply: bytes) -> bytes:
        """A server's reply without our key, before a message of it is cut short: the cut could go through the key."""
        return self.without_key(reply.decode("latin-1")).encode("latin-1")

    def mask(self, text: str) -> str:
        """The text on one line, without our key or anything else that looks like one."""
        return " ".join(_LOOKS_SECRET.sub(_MASK, self.without_key(text)).split())


def check_caption_config(config: CaptionConfig) -> None:
    """Say now what would stop captioning later. A missing address is no mistake: nothing may need a caption.

    Raises:
        ConfigError: `base_url` is no such address, or the key's variable is not set.
    """
    if config.policy == "all":
        _require_address(config, "every picture needs")
    if config.provider == "anthropic" and config.temperature > 1:
        raise ConfigError(f"caption.temperature = {config.temperature}: anthropic takes 0 to 1")
    if config.policy != "none" and config.base_url is not None:
        _endpoint(config.base_url, config.api_key_env)


def endpoint_of(config: CaptionConfig, wanted: int) -> Endpoint:
    """The endpoint to ask `wanted` captions of.

    Raises:
        ConfigError: `base_url` or `model` is not set or not usable, or the key's variable is not set.
    """
    _require_address(config, f"{wanted} pictures need")
    return _endpoint(str(config.base_url), config.api_key_env)


def _require_address(config: CaptionConfig, who: str) -> None:
    for name, example in (("base_url", "http://127.0.0.1:8000/v1"), ("model", "gpt-4o-mini")):
        if not getattr(config, name):
            raise ConfigError(
                f"caption.{name} is not set, and {who} a caption (caption.policy = {config.policy!r});"
                f" set it (such as {example}), or caption.policy: none"
            )


def _endpoint(base_url: str, variable: str) -> Endpoint:
    _check_address(base_url)
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(base_url):
        raise ConfigError(
            f"caption.api_key_env = {variable!r}: the environment variable {variable} is not set;"
            " put the API's key there (any word, if the server asks for none)"
        )
    if not all("!" <= letter <= "~" for letter in key):
        # The value itself stays out of the message.
        raise ConfigError(f"caption.api_key_env = {variable!r}: {variable} holds characters that no key has")
    return Endpoint(base_url.rstrip("/"), variable, key or None)


def _check_address(base_url: str) -> None:
    import httpx

    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        httpx.URL(base_url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        shown = "caption.base_url" if "@" in base_url else f"caption.base_url = {base_url!r}"
        raise ConfigError(f"{shown}: expected an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"caption.base_url: expected scheme, host and path alone (host {parts.hostname!r});"
            " a key belongs into the environment variable that caption.api_key_env names"
        )
    for path in ("/chat/completions", "/messages"):
        if parts.path.rstrip("/").endswith(path):
            raise ConfigError(f"caption.base_url = {base_url!r}: leave out {path}, it is added")


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
