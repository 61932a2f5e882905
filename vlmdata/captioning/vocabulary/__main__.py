"""Make the shipped embeddings again; needed whenever the starter's weights or the phrases change."""

from __future__ import annotations

from vlmdata.captioning.vocabulary import save
from vlmdata.measure.encoder import load_encoder

if __name__ == "__main__":
    save(load_encoder("starter", device="cpu"))
