"""The phrases that the stand-in caption server knows, and their places in a model's text space.

Embedding them takes a model many seconds, so that of the `starter` ships beside
the phrases; `python -m vlmdata.captioning.vocabulary` makes it again. It is used
for the very model and phrases it was made with, and computed anew for any other.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmdata.measure.encoder import Encoder

PHRASES = Path(__file__).parent / "phrases.txt"
EMBEDDINGS = Path(__file__).parent / "starter.safetensors"
TEMPLATE = "A picture of {}."


def phrases() -> list[str]:
    """Noun phrases with their article, in a fixed order."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def embeddings(encoder: Encoder, shipped: Path = EMBEDDINGS) -> Any:
    """Each phrase's caption in the encoder's text space: float32 (n, dim), read from `shipped` if that fits."""
    fingerprint = _fingerprint(encoder)
    stored = _load(shipped, fingerprint)
    # Rounded either way, so that an answer does not depend on which way it was.
    return (_compute(encoder) if stored is None else stored).astype("float32")


def is_current(encoder: Encoder, shipped: Path = EMBEDDINGS) -> bool:
    """Whether `shipped` holds this encoder's embeddings of these phrases."""
    return _load(shipped, _fingerprint(encoder)) is not None


def save(encoder: Encoder, target: Path = EMBEDDINGS) -> None:
    """Write the embeddings to ship with this encoder."""
    from safetensors.numpy import save_file

    save_file({"phrases": _compute(encoder)}, target, metadata={"fingerprint": _fingerprint(encoder)})
    # safetensors writes for the owner alone.
    target.chmod(0o644)


def _compute(encoder: Encoder) -> Any:
    return encoder.texts([TEMPLATE.format(phrase) for phrase in phrases()]).astype("float16")


def _fingerprint(encoder: Encoder) -> str:
    """Names the weights and the texts."""
    texts = "\n".join([encoder.weights, TEMPLATE, *phrases()])
    return sha256(texts.encode()).hexdigest()


def _load(path: Path, fingerprint: str) -> Any:
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as stored:
        if (stored.metadata() or {}).get("fingerprint") != fingerprint:
            return None
        return stored.get_tensor("phrases")
