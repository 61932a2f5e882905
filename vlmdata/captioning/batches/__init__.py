"""Captions at half price, within a day. A new batch API is one file and one line in `BATCH_APIS`."""

from __future__ import annotations

from collections.abc import Callable

from vlmdata.captioning.batches.anthropic import AnthropicBatches
from vlmdata.captioning.batches.base import BatchApi
from vlmdata.captioning.batches.openai import OpenAIBatches
from vlmdata.captioning.endpoint import Endpoint

BATCH_APIS: dict[str, Callable[[Endpoint], BatchApi]] = {"openai": OpenAIBatches, "anthropic": AnthropicBatches}
"""By `caption.provider`."""
