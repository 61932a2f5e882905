"""Make the sample that `make demo` builds from: Tux Paint stamps with honest troubles planted among them.

    apt-get install tuxpaint-stamps-default librsvg2-bin
    python examples/make_sample.py --stamps /usr/share/tuxpaint/stamps --out examples/stamps

The same package, `rsvg-convert` and Pillow give the same bytes; `troubles.json` lists what was planted.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagehash
from PIL import ExifTags, Image, ImageEnhance

MIN_SIDE = 224
MAX_ASPECT = 9.0
MAX_LONG_SIDE = 1024
MAX_PNG_BYTES = 80_000
#: Above the pipeline's 8, so that another decoder's last bits cannot turn two stamps into near-duplicates.
MIN_DISTANCE = 11
SVG_SIDES = (256, 288, 320, 352, 384, 448, 512)
#: Mostly PNG, as pictures with transparency are; drawn by the name's checksum.
FORMATS = ("png", "png", "png", "jpg", "jpg", "webp", "webp")
LICENSE = "GPL-2.0-or-later"
LANGUAGES = {
    "fr": ("fr",),
    "de": ("de",),
    "es": ("es",),
    "zh": ("zh_CN", "zh_TW"),
    "ja": ("ja",),
    "ru": ("ru",),
}
LANGUAGES_A_PICTURE = 3
PACKAGE_DOC = Path("/usr/share/doc/tuxpaint-stamps-default")
GPL_2 = Path("/usr/share/common-licenses/GPL-2")

#: Stamps left out, and why.
LEFT_OUT = {
    "animals/birds/helmeted_guineafowl": "GFDL alone",
    "animals/birds/swallow": "CC-BY-3.0 by its own metadata",
    "animals/insects/Brown_slug": "GFDL or CC-BY-SA-2.5",
    "animals/insects/Woodlouse": "GFDL alone",
    "food/fruit/Apricot_whole": "GFDL alone",
    "food/fruit/Cherry_Stella": "GFDL alone",
    "food/fruit/Strawberry2": "GFDL alone",
    "household/Lightbulb": "GFDL alone",
    "naturalforces/lightningbolt": "white on white once its transparency is filled",
    "seasonal/christmas/Mince_Pie": "CC-BY-2.5",
    "seasonal/christmas/Roast_turkey": "CC-BY-2.0",
    "symbols/clockface": "GFDL alone",
    "town/monuments/inukshuk-photo": "CC-BY-SA-2.5",
    "vehicles/emergency/firetruck": "CC-BY-2.5",
}

#: Stamps that a trouble is made from, and the format that the trouble needs.
PINNED = {
    "animals/mammals/bears/european-bear": "jpg",
    "household/globe": "png",
    "seasonal/winter/snowman": "png",
    "town/houses/cartoon/windmill": "png",
    "vehicles/farming/cartoon/tractor": "png",
}
WITHOUT_CAPTION = (
    "animals/insects/cartoon/monarchbutterfly",
    "clothes/hats/sombrero",
    "household/umbrella",
    "town/houses/cartoon/lighthouse",
    "vehicles/cycle/motorbike",
)
EMPTY_CAPTION = ("clothes/hikingboot", "food/fruit/cartoon/banana")
#: So wrong that `starter` rejected them after each of ten trainings; most wrong captions it merely doubts.
MISMATCHED = {
    "animals/mammals/bears/cartoon/teddy_bear": "A helicopter above a city.",
    "food/fruit/cartoon/pineapple": "An airplane taking off from a runway.",
    "vehicles/masstransit/cartoon/schoolbus": "A red apple on a white table.",
}
LONG_CAPTION = "town/monuments/inukshuk-outline"
MOVING = ("household/padlock_closed", "household/padlock_open")
TINY = "space/moon/moon_crescent"
TORN = "people/body_parts/eye_brown_left"


class SampleError(Exception):
    """The sample cannot be made: one line for the person who runs this."""


@dataclass(frozen=True)
class Stamp:
    """One stamp of the package: its path without suffix, its captions by the package's language codes."""

    stem: str
    captions: dict[str, str]
    image: Image.Image
    png: bytes | None

    @property
    def checksum(self) -> int:
        """A number that depends on the name alone."""
        return zlib.crc32(self.stem.encode())


@dataclass(frozen=True)
class Picture:
    """A stamp as the sample ships it."""

    stamp: Stamp
    file: str
    data: bytes

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        image = opened(self.data)
        return image.width * image.height


@dataclass
class Sample:
    """What is written in the end."""

    pictures: dict[str, bytes] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: str, data: bytes | None = None, **row: Any) -> None:
        """Add a picture, a caption row, or both."""
        if data is not None:
            self.pictures[file] = data
        if row:
            self.rows.append({"file": file, **row, "license": LICENSE})

    def trouble(self, file: str, stage: str, level: str, code: str | None, why: str, **more: Any) -> None:
        """Note a planted trouble and what must become of it; `code` is None where nothing may be rejected."""
        self.troubles.append({"file": file, "stage": stage, "level": level, "code": code, "why": why, **more})


# --- reading the package --------------------------------------------------------------------------


def read_captions(path: Path) -> dict[str, str]:
    """The captions of one stamp by language code: a first line in English, then `xx.utf8=...` lines."""
    english, *others = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(".utf8=", 1) for line in others if ".utf8=" in line)
    return {"en": english.strip()} | {code: text.strip() for code, text in pairs}


def rsvg(path: Path, *options: str) -> Image.Image:
    """An SVG file as an image with transparency."""
    command = ["rsvg-convert", "--keep-aspect-ratio", *options, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise SampleError(f"{path}: rsvg-convert failed: {done.stderr.decode(errors='replace').strip()}")
    return opened(done.stdout).convert("RGBA")


def render(path: Path, side: int) -> Image.Image:
    """An SVG file drawn with a shorter side of `side` pixels, less where the longer would be too long."""
    width, height = rsvg(path, "--width", "512", "--height", "512").size
    side = max(MIN_SIDE, min(side, MAX_LONG_SIDE * min(width, height) // max(width, height)))
    return rsvg(path, "--width" if width <= height else "--height", str(side))


def read_stamps(root: Path) -> Iterator[Stamp]:
    """Every stamp that is drawn or large enough, and not a mere line; sorted by name."""
    for stamp in large_stamps(root):
        if max(stamp.image.size) <= MAX_ASPECT * min(stamp.image.size):
            yield stamp


def large_stamps(root: Path) -> Iterator[Stamp]:
    """Every stamp that is drawn or large enough."""
    for described in sorted(root.rglob("*.txt")):
        stem = described.with_suffix("").relative_to(root).as_posix()
        drawn, painted = described.with_suffix(".svg"), described.with_suffix(".png")
        if stem in LEFT_OUT:
            continue
        if drawn.exists():
            side = SVG_SIDES[zlib.crc32(stem.encode()) // 7 % len(SVG_SIDES)]
            yield Stamp(stem, read_captions(described), render(drawn, side), png=None)
        elif painted.exists() and min(Image.open(painted).size) >= MIN_SIDE:
            data = painted.read_bytes()
            yield Stamp(stem, read_captions(described), opened(data).convert("RGBA"), png=data)


# --- pictures -------------------------------------------------------------------------------------


def opened(data: bytes) -> Image.Image:
    """The image in these bytes."""
    return Image.open(io.BytesIO(data))


def on_white(image: Image.Image) -> Image.Image:
    """The image without transparency."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a PNG, WebP or JPEG file; only the last loses its transparency."""
    stream = io.BytesIO()
    match form:
        case "png":
            image.save(stream, "PNG", optimize=True, **options)
        case "webp":
            image.save(stream, "WEBP", **({"quality": 85, "method": 4} | options))
        case "jpg":
            on_white(image).save(stream, "JPEG", **({"quality": 88, "optimize": True} | options))
        case _:
            raise SampleError(f"format {form!r} is none of png, webp, jpg")
    return stream.getvalue()


def shrunk(image: Image.Image) -> Image.Image:
    """The image with its longer side within the limit, its shorter not under the least; never enlarged."""
    scale = max(MAX_LONG_SIDE / max(image.size), MIN_SIDE / min(image.size))
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def shipped(stamp: Stamp) -> Picture:
    """The stamp in the format that its name draws; a small painted PNG keeps its bytes."""
    pinned = PINNED.get(stamp.stem)
    if stamp.png is not None and len(stamp.png) <= MAX_PNG_BYTES and pinned in (None, "png"):
        return Picture(stamp, f"{stamp.stem}.png", stamp.png)
    form = pinned or FORMATS[stamp.checksum % len(FORMATS)]
    image = shrunk(stamp.image)
    data = encoded(image, form)
    if form == "png" and len(data) > MAX_PNG_BYTES and pinned is None:
        form, data = "webp", encoded(image, "webp")
    return Picture(stamp, f"{stamp.stem}.{form}", data)


def phash(data: bytes) -> imagehash.ImageHash:
    """The perceptual hash of a picture on white."""
    return imagehash.phash(on_white(opened(data)))


def distinct(pictures: Iterable[Picture]) -> list[Picture]:
    """The pictures of which no two look alike: colour variants and copies go, the largest stays."""
    kept: list[tuple[Picture, imagehash.ImageHash]] = []
    for picture in sorted(pictures, key=lambda p: (-p.pixels, p.file)):
        looks = phash(picture.data)
        if all(looks - other >= MIN_DISTANCE for _, other in kept):
            kept.append((picture, looks))
    return sorted((picture for picture, _ in kept), key=lambda p: p.file)


def captions_of(stamp: Stamp) -> list[dict[str, str]]:
    """English and up to three more languages, drawn by the name's checksum; untranslated ones go."""
    captions = [{"text": stamp.captions["en"], "lang": "en"}]
    start = stamp.checksum % len(LANGUAGES)
    turns = [*LANGUAGES.items()][start:] + [*LANGUAGES.items()][:start]
    for lang, codes in turns:
        text = next((stamp.captions[code] for code in codes if stamp.captions.get(code)), "")
        if text and text != stamp.captions["en"] and len(captions) <= LANGUAGES_A_PICTURE:
            captions.append({"text": text, "lang": lang})
    return captions


# --- troubles -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """A near-duplicate of a stamp, with a caption of its own that must move to the one that stays."""

    stem: str
    file: str
    caption: str
    why: str


TIE = "; both have as many pixels, so the stable id decides which of the two stays"
SAME_BYTES = Copy(
    "seasonal/winter/snowman",
    "inbox/snowman (1).png",
    "A drawing of a snowman with a brown hat.",
    "the same bytes under another name" + TIE,
)
SAVED_AGAIN = Copy(
    "town/houses/cartoon/windmill",
    "inbox/windmill_saved_again.jpg",
    "An old wooden windmill.",
    "encoded again as a JPEG of quality 60" + TIE,
)
SMALLER = Copy(
    "household/globe",
    "inbox/globe_smaller.jpg",
    "A globe of the earth on a stand.",
    "nine tenths of the size, so the larger one stays",
)
BRIGHTER = Copy(
    "vehicles/farming/cartoon/tractor",
    "inbox/tractor_brighter.webp",
    "A green farm tractor.",
    "12 % brighter" + TIE,
)


def plant_copies(sample: Sample, by_stem: dict[str, Picture]) -> None:
    """Four near-duplicates: the same bytes, encoded again, a little smaller, a little brighter."""
    images = {copy: on_white(opened(by_stem[copy.stem].data)) for copy in (SAVED_AGAIN, SMALLER, BRIGHTER)}
    globe = images[SMALLER]
    smaller = globe.resize((globe.width * 9 // 10, globe.height * 9 // 10), Image.Resampling.LANCZOS)
    brighter = ImageEnhance.Brightness(images[BRIGHTER]).enhance(1.12)
    copies = {
        SAME_BYTES: by_stem[SAME_BYTES.stem].data,
        SAVED_AGAIN: encoded(images[SAVED_AGAIN], "jpg", quality=60),
        SMALLER: encoded(smaller, "jpg"),
        BRIGHTER: encoded(brighter, "webp"),
    }
    for copy, data in copies.items():
        sample.add(copy.file, data, captions=[{"text": copy.caption, "lang": "en"}])
        more = {"of": by_stem[copy.stem].file, "either": copy.why.endswith(TIE)}
        sample.trouble(copy.file, "01_filtered", "sample", "near_duplicate", copy.why, **more)


def plant_broken(sample: Sample, torn: Stamp, tiny: Path) -> None:
    """Files that are not whole pictures, or too small."""
    whole = encoded(torn.image, "jpg")
    broken = [
        (
            "inbox/half_downloaded.jpg",
            whole[: len(whole) * 11 // 20],
            torn.captions["en"],
            "truncated",
            "the last 45 % of the JPEG are missing",
        ),
        ("inbox/nothing.png", b"", "A picture of a garden.", "empty_file", "the file has no bytes"),
        (
            "inbox/not_found.jpg",
            b"<html><head><title>404 Not Found</title></head></html>\n",
            "A picture of a harbour.",
            "not_an_image",
            "an error page saved under the name of a picture",
        ),
        (
            f"{TINY}.png",
            tiny.read_bytes(),
            read_captions(tiny.with_suffix(".txt"))["en"],
            "too_small",
            f"96 x 96 pixels, under the {MIN_SIDE} of the shorter side",
        ),
    ]
    for file, data, caption, code, why in broken:
        sample.add(file, data, captions=[{"text": caption, "lang": "en"}])
        sample.trouble(file, "01_filtered", "sample", code, why)


def plant_missing(sample: Sample) -> None:
    """A caption row without its file."""
    sample.add("inbox/gone.jpg", None, caption="A picture that was deleted.")
    sample.trouble(
        "inbox/gone.jpg", "00_raw", "sample", "missing_file", "its caption row names a file that is not there"
    )


def plant_rotated(sample: Sample, picture: Picture) -> None:
    """A photograph as a phone held upright stores it: lying on its side, with the place in its metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Made up"
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (51.0, 28.0, 40.0),
        ExifTags.GPS.GPSLongitudeRef: "W",
        ExifTags.GPS.GPSLongitude: (0.0, 0.0, 5.0),
    }
    lying = on_white(opened(picture.data)).transpose(Image.Transpose.ROTATE_90)
    sample.add(picture.file, encoded(lying, "jpg", exif=exif), captions=captions_of(picture.stamp))
    why = "EXIF orientation 6 and a (made up) GPS position: it must come out upright, without the position"
    sample.trouble(picture.file, "04_final", "sample", None, why)


def plant_moving(sample: Sample, first: Stamp, second: Stamp) -> None:
    """A GIF of two frames."""
    frames = [on_white(stamp.image) for stamp in (first, second)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=[frames[1].resize(frames[0].size)], duration=800, loop=0)
    sample.add("household/padlock.gif", stream.getvalue(), captions=captions_of(first))
    why = "two frames: the first one is used, and the sample says so"
    sample.trouble("household/padlock.gif", "01_filtered", "sample", None, why)


def plant_captions(sample: Sample, by_stem: dict[str, Picture]) -> None:
    """Captions that are wrong, empty, too long, or not there."""
    for stem, caption in MISMATCHED.items():
        picture = by_stem[stem]
        sample.add(picture.file, picture.data, caption=caption)
        why = f"its only caption describes something else; the right one is {picture.stamp.captions['en']!r}"
        sample.trouble(picture.file, "03_quality_checked", "sample", "misaligned", why)
    for stem in EMPTY_CAPTION:
        picture = by_stem[stem]
        sample.add(picture.file, picture.data, caption="")
        why = "its only caption is empty, so the picture has none and the captioner is asked"
        sample.trouble(picture.file, "01_filtered", "caption", "empty_caption", why)
    for stem in WITHOUT_CAPTION:
        picture = by_stem[stem]
        sample.add(picture.file, picture.data)
        sample.trouble(picture.file, "02_captioned", "sample", None, "no caption row: the captioner is asked")
    picture = by_stem[LONG_CAPTION]
    everything = " / ".join(picture.stamp.captions.values())
    sample.add(picture.file, picture.data, captions=[*captions_of(picture.stamp)[:2], {"text": everything}])
    why = f"{len(everything):,} characters: the translations into every language, pasted into one caption"
    sample.trouble(picture.file, "01_filtered", "caption", "caption_too_long", why)


def make(root: Path) -> Sample:
    """The whole sample."""
    stamps = {stamp.stem: stamp for stamp in read_stamps(root)}
    pictures = distinct(shipped(stamp) for stem, stamp in stamps.items() if stem not in (*MOVING, TORN))
    by_stem = {picture.stamp.stem: picture for picture in pictures}
    special = {*WITHOUT_CAPTION, *EMPTY_CAPTION, *MISMATCHED, LONG_CAPTION}
    lost = sorted(({*PINNED} | special) - set(by_stem))
    if lost:
        raise SampleError(f"{lost[0]}: needed for a trouble, but not in the package or too like another")
    sample = Sample()
    rotated = by_stem["animals/mammals/bears/european-bear"]
    for stem, picture in by_stem.items():
        if stem not in special and picture is not rotated:
            sample.add(picture.file, picture.data, captions=captions_of(picture.stamp))
    plant_rotated(sample, rotated)
    plant_moving(sample, stamps[MOVING[0]], stamps[MOVING[1]])
    plant_copies(sample, by_stem)
    plant_broken(sample, stamps[TORN], root / f"{TINY}.png")
    plant_missing(sample)
    plant_captions(sample, by_stem)
    return sample


# --- writing --------------------------------------------------------------------------------------


def clear(out: Path) -> None:
    """Remove an earlier sample from `out`.

    Raises:
        SampleError: `out` holds a folder `pictures` that no earlier run made.
    """
    pictures = out / "pictures"
    if pictures.exists() and not (out / "troubles.json").exists():
        raise SampleError(f"{pictures}: no earlier run of this script made it; choose another --out")
    shutil.rmtree(pictures, ignore_errors=True)


def write(sample: Sample, out: Path) -> None:
    """The pictures, `captions.jsonl` and `troubles.json`."""
    for file, data in sample.pictures.items():
        path = out / "pictures" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rows = sorted(sample.rows, key=lambda row: str(row["file"]))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "captions.jsonl").write_text(lines, encoding="utf-8")
    troubles = json.dumps(sample.troubles, indent=1, ensure_ascii=False) + "\n"
    (out / "troubles.json").write_text(troubles, encoding="utf-8")


def write_licences(out: Path, doc: Path, gpl: Path) -> None:
    """The licence's text, the package's copyright file, and its change log, which credits every author."""
    shutil.copyfile(gpl, out / "COPYING")
    shutil.copyfile(doc / "copyright", out / "COPYRIGHT")
    (out / "CREDITS.txt").write_bytes(gzip.decompress((doc / "changelog.gz").read_bytes()))


def arguments() -> argparse.Namespace:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--stamps", type=Path, required=True, help="the package's folder of stamps")
    parser.add_argument("--out", type=Path, required=True, help="where the sample goes")
    parser.add_argument("--doc", type=Path, default=PACKAGE_DOC, help="the package's documentation")
    parser.add_argument("--gpl", type=Path, default=GPL_2, help="the text of the GPL, version 2")
    return parser.parse_args()


def main() -> None:
    """Make the sample and say what it holds."""
    options = arguments()
    if shutil.which("rsvg-convert") is None:
        raise SampleError("rsvg-convert is not installed; Debian has it in librsvg2-bin")
    if not options.stamps.is_dir():
        raise SampleError(f"{options.stamps}: no such folder; install Debian's tuxpaint-stamps-default")
    options.out.mkdir(parents=True, exist_ok=True)
    clear(options.out)
    sample = make(options.stamps)
    write(sample, options.out)
    write_licences(options.out, options.doc, options.gpl)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(
        f"{len(sample.pictures)} files, {len(sample.rows)} caption rows, "
        f"{len(sample.troubles)} troubles, {size / 1e6:.1f} MB in {options.out}"
    )


if __name__ == "__main__":
    try:
        main()
    except SampleError as error:
        sys.exit(f"make_sample: {error}")
