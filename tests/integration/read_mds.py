"""Run in `.venv-streaming`: read an MDS set with mosaicml's StreamingDataset, as if it were far away; a line a sample.

python read_mds.py FOLDER CACHE
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256


def main(folder: str, cache: str) -> None:
    """Print id, caption, story and picture of each sample, in the set's order."""
    from streaming import StreamingDataset

    read = StreamingDataset(remote=folder, local=cache, shuffle=False, batch_size=1, validate_hash="sha256")
    for sample in read:
        picture = sample["image"]
        data = picture.fp.getvalue()
        told = {"bytes": sha256(data).hexdigest(), "pixels": sha256(picture.convert("RGB").tobytes()).hexdigest()}
        told |= {name: sample[name] for name in ("id", "caption", "json")}
        sys.stdout.write(json.dumps({**told, "format": picture.format, "columns": sorted(sample)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
