"""The decoder process: strangers' bytes meet Pillow here and nowhere else first.

Run by path, isolated from the caller's modules:
`python -I decode_worker.py FD MAX_PIXELS MEMORY_MB ALARM_S`. Each line on standard
input is a JSON list of [offset, size] into the open file FD. The first line
of output says that it is ready; each answer is a JSON line, followed by the
picture's grey tile if it decoded whole.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import threading
import warnings
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from grey_tile import faster  # type: ignore[import-not-found]
from PIL import Image, UnidentifiedImageError
from pixels import ORIENTATION, tile, upright_rgb  # type: ignore[import-not-found]

_tile = faster(tile)
_SEQUENCES = {"GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"}
_RUN_PROGRAMS = {"EPS", "WMF"}
"""Formats that Pillow hands to another program (Ghostscript, the system's renderer)."""
_KERNEL_AFTER = 200
"""Pictures after which the compiled kernel of tiles is loaded: before, that costs more than it saves."""
_KERNEL_MB = 512
"""Addresses that it takes, numba and LLVM with it, rounded up; of memory a sixth."""
_MOST = 2**31 - 1
"""The largest number that a column of facts holds; a header may claim any."""


def measure(data: bytes, max_pixels: int) -> tuple[dict[str, Any], bytes]:
    """Facts of one picture, and its tile; `error` is a reason code if it does not decode whole."""
    facts: dict[str, Any] = {}
    try:
        if not data:
            return {"error": "empty_file"}, b""
        with Image.open(io.BytesIO(data)) as image:
            if image.format in _RUN_PROGRAMS:
                return {"error": "unsupported_format", "format": image.format}, b""
            # All there is at once: what a decoder leaves of a part, it is given again.
            image.decodermaxblock = max(len(data), image.decodermaxblock)
            return _measure_open(image, facts, max_pixels)
    except UnidentifiedImageError:
        return {"error": _unidentified(data)}, b""
    except MemoryError:
        return {**facts, "error": "out_of_memory"}, b""
    # Pillow's plugins raise anything at all on hostile bytes; here each becomes a reason.
    except Exception as error:
        code = "truncated" if "truncated" in str(error).lower() else "corrupt"
        words = f"{type(error).__name__}: {error}"[:300].encode("ascii", "backslashreplace").decode()
        return {**facts, "error": code, "detail": words}, b""


def _measure_open(image: Image.Image, facts: dict[str, Any], max_pixels: int) -> tuple[dict[str, Any], bytes]:
    width, height = image.size
    facts.update(format=image.format, mode=image.mode)
    if max(width, height) > _MOST:
        return {**facts, "error": "too_many_pixels", "detail": f"{width} x {height}"}, b""
    facts.update(width=width, height=height)
    if width * height > max_pixels:
        return {**facts, "error": "too_many_pixels"}, b""
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    facts["orientation"] = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    grey = _tile(upright_rgb(image))
    if facts["orientation"] >= 5:
        facts.update(width=height, height=width)
    facts["frames"] = min(getattr(image, "n_frames", 1), _MOST) if image.format in _SEQUENCES else 1
    return facts, grey


def _unidentified(data: bytes) -> str:
    """Pictures of a kind that Pillow does not read, told apart from what is no picture."""
    head = data[:512].lstrip()
    known = head[:4] == b"<svg" or (head[:5] == b"<?xml" and b"<svg" in data[:4096])
    known = known or data[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif", b"ftypcrx "}
    known = known or data[:4] in {b"8BPS", b"\x00\x00\x00\x0c"} or data[:2] == b"\xff\x0a"
    if known:
        return "unsupported_format"
    cut = data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n" or data[:4] in {b"GIF8", b"RIFF"}
    return "truncated" if cut else "not_an_image"


def _taken() -> int:
    """Bytes of address space before the first picture: libraries, no fault of any picture."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def _load_kernel() -> None:
    """From now on tiles come from the kernel; if it cannot be had, they come as before, with the same bits."""
    global _tile
    from tile_kernel import shrink  # type: ignore[import-not-found]

    _tile = faster(tile, shrink)


def main() -> None:
    """Answer until standard input ends."""
    loading = threading.Thread(target=_load_kernel, daemon=True)
    answered = 0
    file, max_pixels, memory_mb, alarm_s = (int(argument) for argument in sys.argv[1:5])
    most = _taken() + (memory_mb + _KERNEL_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = None  # the bound is ours, and checked before decoding
    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        for offset, size in json.loads(line):
            # Who started this may be gone (kill -9) while a picture hangs: the alarm ends it, in C code too.
            signal.alarm(alarm_s)
            facts, grey = measure(os.pread(file, size, offset), max_pixels)
            signal.alarm(0)
            out.write(json.dumps({**facts, "tile": len(grey)}).encode() + b"\n" + grey)
            out.flush()
            answered += 1
            if answered == _KERNEL_AFTER:
                # Beside the work: no picture waits for it.
                loading.start()
    if loading.is_alive():
        os._exit(0)


if __name__ == "__main__":
    main()
