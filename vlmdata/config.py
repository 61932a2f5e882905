"""The one YAML file that describes a build, and the mistakes people make in it.

Fields marked *operational* say how a run is done (concurrency, addresses,
limits, paths), not what comes out; they are left out of checkpoint keys.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from vlmdata.errors import ConfigError

OPERATIONAL: dict[str, Any] = {"operational": True}


class _Section(BaseModel):
    """A part of the config: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def settings(self) -> dict[str, Any]:
        """What decides the outcome: every field less the operational ones."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not _is_operational(field.json_schema_extra)
        }


def _is_operational(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("operational"))


def _plain(value: Any) -> Any:
    if isinstance(value, _Section):
        return value.settings()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class FolderSource(_Section):
    """A folder of pictures, with captions beside it."""

    kind: Literal["folder"] = Field(default="folder", description="The kind of source.")
    path: str = Field(description="Folder of pictures, searched recursively; a local path or s3:// URL.")
    captions: str | None = Field(
        default=None,
        description="captions.jsonl, .csv or .parquet; null: a .txt beside each picture, where there is one.",
    )


class WebdatasetSource(_Section):
    """WebDataset tars."""

    kind: Literal["webdataset"] = Field(default="webdataset", description="The kind of source.")
    path: str = Field(description="A folder of .tar files, one .tar, or a glob such as ./shards/*.tar.")


class ParquetSource(_Section):
    """Hugging Face style parquet: an image column of structs of bytes and path."""

    kind: Literal["parquet"] = Field(default="parquet", description="The kind of source.")
    path: str = Field(description="A folder of .parquet files, one file, or a glob.")
    image_column: str = Field(default="image", description="Struct of bytes and path, or plain bytes.")
    caption_column: str | None = Field(
        default=None, description="null: the first of captions, caption, text that the file has."
    )


Source = Annotated[FolderSource | WebdatasetSource | ParquetSource, Field(discriminator="kind")]


class FilterConfig(_Section):
    """Stage 01: which pictures can be used."""

    min_side: PositiveInt = Field(default=224, description="Shorter side at least this, in pixels, upright.")
    max_aspect_ratio: float | None = Field(
        default=None, ge=1, description="Longer side over shorter side at most this; null: no limit."
    )
    max_pixels: PositiveInt = Field(
        default=100_000_000,
        le=178_956_970,  # Pillow's own bound, which every later stage decodes under
        description="A picture that declares more pixels is refused undecoded; 178,956,970 at most.",
    )
    max_caption_chars: PositiveInt = Field(
        default=2_000, description="A caption longer than this is rejected; its picture is not."
    )
    decode_timeout_s: PositiveFloat = Field(
        default=20, description="Seconds one picture may take to decode.", json_schema_extra=OPERATIONAL
    )
    decode_memory_mb: PositiveInt = Field(
        default=4_096, description="A picture that needs more memory to decode is rejected, MiB."
    )
    workers: PositiveInt | None = Field(
        default=None, description="Decoder processes a machine; null: one a core.", json_schema_extra=OPERATIONAL
    )


class DedupConfig(_Section):
    """Stage 01: near-duplicates by 64-bit pHash."""

    max_distance: int = Field(default=8, ge=0, le=16, description="Hamming distance that makes a duplicate.")


class Price(_Section):
    """What a model costs, in US dollars; a picture counts as a number of input tokens."""

    input: NonNegativeFloat = Field(description="Dollars for a million input tokens.")
    output: NonNegativeFloat = Field(description="Dollars for a million output tokens.")
    image_tokens: NonNegativeInt = Field(
        default=1_600, description="Input tokens that one picture of at most max_side px counts as, at most."
    )


class CaptionConfig(_Section):
    """Stage 02: captions from a vision-language API."""

    policy: Literal["missing", "all", "none"] = Field(
        default="missing", description="Which pictures get a caption: those without one, all, or none."
    )
    provider: Literal["openai", "anthropic"] = Field(
        default="openai",
        description="The API's dialect; openai is also that of vLLM, SGLang, Ollama, LiteLLM and OpenRouter.",
        json_schema_extra=OPERATIONAL,
    )
    base_url: str | None = Field(
        default=None,
        description="Such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1.",
        json_schema_extra=OPERATIONAL,
    )
    model: str | None = Field(default=None, description="The model's name, as the endpoint knows it.")
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the key; the key itself is never stored.",
        json_schema_extra=OPERATIONAL,
    )
    batch: bool = Field(
        default=False,
        description="Ask through the provider's batch API: about half the price, within a day.",
        json_schema_extra=OPERATIONAL,
    )
    prompt: str = Field(
        default="alt-text",
        description="A shipped prompt (alt-text, detailed, document, regions), a .md file, or the words themselves.",
    )
    language: str = Field(default="en", description="Language the prompt asks for (BCP 47).")
    max_tokens: PositiveInt | None = Field(
        default=None, description="Longest answer, in tokens; null: as the prompt says."
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="0: the likeliest answer.")
    max_side: PositiveInt = Field(default=512, description="Pictures are sent no larger than this, in pixels.")
    images: Literal["data", "presigned"] = Field(
        default="data",
        description="How a picture travels: in the request, or as a link to the object store that holds it.",
        json_schema_extra=OPERATIONAL,
    )
    low_resolution_below: NonNegativeInt = Field(
        default=256,
        description="Below this shorter side, in pixels, the prompt says that the picture is small; 0: never.",
    )
    max_retries: NonNegativeInt = Field(
        default=3, le=3, description="Retries a picture, at most 3.", json_schema_extra=OPERATIONAL
    )
    concurrency: PositiveInt = Field(
        default=16, description="Requests in flight, over the whole run.", json_schema_extra=OPERATIONAL
    )
    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Over the whole run; null: no limit of ours.", json_schema_extra=OPERATIONAL
    )
    tokens_per_minute: PositiveInt | None = Field(
        default=None, description="Input and output, over the whole run; null: no limit.", json_schema_extra=OPERATIONAL
    )
    timeout_s: PositiveFloat = Field(
        default=60, description="Seconds one request may take.", json_schema_extra=OPERATIONAL
    )
    prices: dict[str, Price] = Field(
        default_factory=dict, description="What each model costs.", json_schema_extra=OPERATIONAL
    )
    max_cost: NonNegativeFloat | None = Field(
        default=None,
        description="Dollars that captions of this dataset may cost in all, over all runs; null: no limit.",
        json_schema_extra=OPERATIONAL,
    )
    max_requests: NonNegativeInt | None = Field(
        default=None,
        description="Requests that may be sent for this dataset in all, over all runs; null: no limit.",
        json_schema_extra=OPERATIONAL,
    )
    recaption_held: int = Field(
        default=1, ge=0, le=3, description="How often a held sample is captioned anew and scored again; 0: never."
    )


class LanguageModel(_Section):
    """The model that judges captions of one language."""

    model: str = Field(description="starter, an open_clip name, hf-hub:…, or a folder.")
    pretrained: str | None = Field(default=None, description="A tag or a local weights file.")
    accept_above: float | Literal["auto"] = Field(default="auto", description="As quality.accept_above.")
    reject_below: float | Literal["auto"] = Field(default="auto", description="As quality.reject_below.")


class RetrievalConfig(_Section):
    """Stage 03: do images find their captions? 20 % of 1,000 is the bound for models of CLIP's size."""

    gallery: int = Field(default=1_000, ge=10, description="Images in a gallery; fewer only if the set has fewer.")
    top_k: PositiveInt = Field(default=10, description="The right caption is to be among this many.")
    max_miss_rate: float = Field(
        default=0.20, gt=0, le=1, description="If it is not for this share of images, nothing is exported."
    )
    galleries: PositiveInt = Field(default=5, description="At most so many galleries are drawn.")


class QualityConfig(_Section):
    """Stage 03: CLIPScore and its bands."""

    model: str = Field(default="ViT-B-32", description="starter, an open_clip name, hf-hub:…, or a folder.")
    pretrained: str | None = Field(default="openai", description="A tag or a local weights file.")
    accept_above: float | Literal["auto"] = Field(
        default="auto", description="A caption scoring above this is accepted; auto: the model's calibration."
    )
    reject_below: float | Literal["auto"] = Field(
        default="auto", description="A caption scoring below this is rejected; between the two it is held."
    )
    languages: dict[str, LanguageModel] = Field(
        default_factory=dict, description="Models for languages that `model` does not know."
    )
    unlabelled_language: str = Field(default="en", description="Language of captions that name none.")
    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig)
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU if there is one.", json_schema_extra=OPERATIONAL
    )


Format = Literal["webdataset", "parquet"]


class CaptionMix(_Section):
    """Which of an image's captions are exported."""

    synthetic_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of exported captions that a model wrote, where images have both kinds; null: all captions.",
    )
    min_words: NonNegativeInt = Field(default=0, description="Shorter captions are left out, if another remains.")
    max_words: PositiveInt | None = Field(
        default=None, description="Longer captions are left out, if another remains; null: no limit."
    )


class ExportConfig(_Section):
    """Stage 04: files for a trainer."""

    formats: tuple[Format, ...] = Field(
        default=("webdataset", "parquet"), min_length=1, description="webdataset, parquet."
    )
    path: str | None = Field(
        default=None,
        description="A folder or s3:// URL to copy the export to; null: it lies under 04_final in the store.",
        json_schema_extra=OPERATIONAL,
    )
    samples_per_shard: PositiveInt = Field(default=1_000, description="Samples in one exported file.")
    captions: CaptionMix = Field(default_factory=CaptionMix)
    jpeg_quality: int = Field(default=95, ge=50, le=100, description="For the few pictures that must be encoded anew.")


def dataset_name(value: str) -> str:
    """The value, if it can name a dataset.

    Raises:
        ValueError: it cannot; says what was expected.
    """
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    if not 0 < len(value) <= 100 or value[0] in ".-" or not set(value) <= allowed:
        raise ValueError("a name of letters, digits, '-', '_' and '.', at most 100, not starting with '.' or '-'")
    return value


class BuildConfig(_Section):
    """A build from source to training set."""

    dataset: Annotated[str, AfterValidator(dataset_name)] = Field(description="The dataset's name.")
    store: str = Field(
        default="./store",
        description="Where checkpoints live: a folder, or s3://bucket/prefix.",
        json_schema_extra=OPERATIONAL,
    )
    source: Source = Field(description="Where the pictures come from.")
    shard_size: PositiveInt = Field(default=1_000, description="Samples in a shard.", json_schema_extra=OPERATIONAL)
    engine: Literal["threads", "processes", "ray"] = Field(
        default="threads", description="What runs the shards.", json_schema_extra=OPERATIONAL
    )
    filter: FilterConfig = Field(default_factory=FilterConfig)
    dedup: DedupConfig = Field(default_factory=DedupConfig)
    caption: CaptionConfig = Field(default_factory=CaptionConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)


def load_config(path: str | os.PathLike[str], overrides: list[str] | None = None) -> BuildConfig:
    """Read a config file; `overrides` are `dotted.key=value` with YAML values.

    Relative paths in the file are taken from the folder that holds it, those
    in `overrides` from the working folder.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    file = Path(path)
    raw = _read_yaml(file)
    raw.setdefault("store", BuildConfig.model_fields["store"].default)
    _absolute_paths(raw, file.parent.resolve())
    given: dict[str, Any] = {}
    for override in overrides or []:
        _apply(given, override)
    _absolute_paths(given, Path.cwd())
    return parse_config(_merge(raw, given), where=str(path))


def parse_config(raw: Any, where: str = "config") -> BuildConfig:
    """Validate a mapping; `where` is named in the error."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a mapping of keys such as dataset, store and source")
    try:
        return BuildConfig.model_validate(raw)
    except ValidationError as error:
        # Keys come from people, too: one may hold a line break.
        raise ConfigError(" ".join(f"{where}: {_explain(error)}".split())) from error


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file; `vlmdata init` writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text ({error})") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{file}: not valid YAML: {line}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: expected a mapping of keys such as dataset, store and source")
    return raw


def _apply(target: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, such as filter.min_side=256")
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is already set to a plain value")
    try:
        target[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


_PATH_KEYS = (("store",), ("source", "path"), ("source", "captions"), ("export", "path"))
_NAME_OR_PATH_KEYS = (("quality", "model"), ("quality", "pretrained"), ("caption", "prompt"))


def _absolute_paths(raw: dict[str, Any], base: Path) -> None:
    for *parents, leaf in (*_PATH_KEYS, *_NAME_OR_PATH_KEYS, *_language_keys(raw)):
        section: Any = raw
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        value = section.get(leaf) if isinstance(section, dict) else None
        if not isinstance(value, str) or "://" in value:
            continue
        if (*parents, leaf) in _PATH_KEYS or value.startswith(("./", "../", "~")):
            section[leaf] = os.path.normpath(base / Path(value).expanduser())


def _language_keys(raw: dict[str, Any]) -> list[tuple[str, ...]]:
    quality = raw.get("quality")
    languages = quality.get("languages") if isinstance(quality, dict) else None
    tags = languages if isinstance(languages, dict) else {}
    return [("quality", "languages", tag, leaf) for tag in tags for leaf in ("model", "pretrained")]


def _explain(error: ValidationError) -> str:
    """The first mistake as one line: key, value, what was expected, nearest right key."""
    every = error.errors(include_url=False)
    # A key that is not known may be the one that is missing, misspelt.
    first = next((one for one in every if one["type"] == "extra_forbidden"), every[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join(_without_tags(path))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(path)}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] == "union_tag_not_found":
        return f"the key '{key}.kind' is missing: expected one of {', '.join(_SOURCES)}"
    if first["type"] == "union_tag_invalid":
        return f"{key}.kind = {first['ctx']['tag']!r}: expected one of {', '.join(_SOURCES)}"
    if path[-1] == "[key]":
        return f"{'.'.join(path[:-2])}: expected text as keys, not {first['input']!r}; put it in quotes"
    same = [one for one in every if ".".join(_without_tags([str(part) for part in one["loc"]])) == key]
    expected = " or ".join(dict.fromkeys(_expected(one["msg"]) for one in same))
    if path[-1] == "api_key_env":
        # Somebody may have put the key itself there.
        return f"{key}: expected the name of an environment variable, such as OPENAI_API_KEY; the key goes into that"
    return f"{key} = {_short(first['input'])}: expected {expected}"


def _expected(message: str) -> str:
    """What pydantic says was expected, in the words of a config file."""
    for prefix in ("Value error, ", "Input should be ", "Tuple should have "):
        message = message.removeprefix(prefix)
    return "a mapping of keys" if message.startswith("a valid dictionary") else message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(path: list[str]) -> str:
    """`; did you mean 'x'?` or the keys that are known at that place."""
    known = _known_keys(path[:-1])
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {'.'.join([*_without_tags(path[:-1]), close[0]])!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _without_tags(path: list[str]) -> list[str]:
    """The keys as a person writes them: without the names that pydantic gives to branches of a union."""
    keys = [part for position, part in enumerate(path) if not (position and path[position - 1] == "source")]
    return [part for part in keys if part != "float" and not part.startswith("literal[")]


_SOURCES: dict[str, type[_Section]] = {
    "folder": FolderSource,
    "webdataset": WebdatasetSource,
    "parquet": ParquetSource,
}


def _known_keys(path: list[str]) -> list[str]:
    section: type[_Section] = BuildConfig
    for part in path:
        if part in _SOURCES:
            section = _SOURCES[part]
        elif part == "languages":
            section = LanguageModel
        elif part in section.model_fields:
            annotation = section.model_fields[part].annotation
            section = annotation if isinstance(annotation, type) and issubclass(annotation, _Section) else section
    return list(section.model_fields)
