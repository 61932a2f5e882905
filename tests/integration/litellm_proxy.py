"""LiteLLM's proxy, a server that nobody here wrote, with answers of its own making: no model behind it, no network.

It runs in an environment of its own, since its pins and ours exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.integration.processes import ROOT, environment, free_port, started, wait_until

COMMAND = ROOT / ".venv-litellm" / "bin" / "litellm"

ANSWERS = {
    "describes": "A square of a single colour.",
    "busy": "litellm.RateLimitError",
    "broken": "litellm.InternalServerError",
    "narrow": "litellm.ContextWindowExceededError",
}
"""Each model and its mock response; LiteLLM raises the errors that are named so."""


@dataclass(frozen=True)
class Proxy:
    """Where it is, the key it accepts, and what it wrote about itself."""

    base_url: str
    key: str
    log: Path

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            return httpx.get(f"{self.base_url}/models", headers=self._headers, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def says(self, model: str, text: str) -> dict[str, Any]:
        """Its reply to a question, whole."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        reply = httpx.post(f"{self.base_url}/chat/completions", json=body, headers=self._headers, timeout=30)
        found: dict[str, Any] = reply.raise_for_status().json()
        return found

    def asked(self) -> int:
        """How many questions it has had so far, by its own access log."""
        return self.log.read_text(encoding="utf-8", errors="replace").count("POST /v1/chat/completions HTTP/1.1")

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@contextmanager
def litellm_proxy(folder: Path) -> Iterator[Proxy]:
    """The proxy on loopback and a free port; its config and log go into `folder`. Needs 8 s or so to start."""
    port, log = free_port(), folder / "litellm.log"
    proxy = Proxy(f"http://127.0.0.1:{port}/v1", "sk-master-0123456789", log)
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(_config(proxy.key)), encoding="utf-8")
    command = [
        str(COMMAND),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    ]
    env = environment(LITELLM_LOCAL_MODEL_COST_MAP="True", PYTHONUNBUFFERED="1")
    # The checkout's packages are not of its world.
    env.pop("PYTHONPATH", None)
    with log.open("wb") as out, started(command, env, out.fileno(), out.fileno(), cwd=folder):
        wait_until(proxy.answers, f"LiteLLM's proxy answers; see {log}")
        yield proxy


def _config(key: str) -> dict[str, Any]:
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/none", "api_key": "none", "mock_response": response},
        }
        for name, response in ANSWERS.items()
    ]
    return {
        "model_list": models,
        # Every failure is ours to handle: it neither asks again by itself nor rests a model that fails.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": key},
    }
