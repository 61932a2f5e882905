"""Run in `.venv-streaming`: read MDS sets with mosaicml's StreamingDataset, which takes ten seconds to import.

python read_mds.py FOLDER HURT SHOWN CACHE
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path


def main(folder: str, hurt: str, shown: str, cache: str) -> None:
    """A line a sample of FOLDER, as if it were far away; what the code in SHOWN prints; a line a sample of HURT.

    Lines with `next` part the three.
    """
    from streaming import StreamingDataset

    read = StreamingDataset(remote=folder, local=f"{cache}/whole", shuffle=False, batch_size=1, validate_hash="sha256")
    for sample in read:
        picture = sample["image"]
        data = picture.fp.getvalue()
        told = {"bytes": sha256(data).hexdigest(), "pixels": sha256(picture.convert("RGB").tobytes()).hexdigest()}
        told |= {name: sample[name] for name in ("id", "caption", "json")}
        say(json.dumps({**told, "format": picture.format, "columns": sorted(sample)}))
    say("next")
    exec(compile(Path(shown).read_text(encoding="utf-8"), shown, "exec"), {})
    say("next")
    # Last, for it is noticed in a thread, and ends the process.
    read = StreamingDataset(remote=hurt, local=f"{cache}/hurt", shuffle=False, batch_size=1, validate_hash="sha256")
    for sample in read:
        say(sample["id"])


def say(line: str) -> None:
    """At once, as the process may be ended at any time."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
