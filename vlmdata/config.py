"""What a build's config may say: every key, its default and its bounds.

Fields marked *operational* say how a run is done (concurrency, addresses,
limits, paths), not what comes out; they are left out of checkpoint keys.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)


def _is_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected a network such as 127.0.0.2/32 or fd00::/8: {error}") from error
    return text


IpNetwork = Annotated[str, AfterValidator(_is_network)]
OPERATIONAL: dict[str, Any] = {"operational": True}


class Section(BaseModel):
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
    if isinstance(value, Section):
        return value.settings()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class FolderSource(Section):
    """A folder of pictures, with captions beside it."""

    kind: Literal["folder"] = Field(default="folder", description="The kind of source.")
    path: str = Field(description="Folder of pictures, searched recursively; a local path or s3:// URL.")
    captions: str | None = Field(
        default=None,
        description="captions.jsonl, .csv or .parquet; null: a .txt beside each picture, where there is one.",
    )


class WebdatasetSource(Section):
    """WebDataset tars."""

    kind: Literal["webdataset"] = Field(default="webdataset", description="The kind of source.")
    path: str = Field(description="A folder of .tar files, one .tar, or a glob such as ./shards/*.tar.")


class ParquetSource(Section):
    """Hugging Face style parquet: an image column of structs of bytes and path."""

    kind: Literal["parquet"] = Field(default="parquet", description="The kind of source.")
    path: str = Field(description="A folder of .parquet files, one file, or a glob.")
    image_column: str = Field(default="image", description="Struct of bytes and path, or plain bytes.")
    caption_column: str | None = Field(
        default=None, description="null: the first of captions, caption, text that the file has."
    )


class UrlsSource(Section):
    """A list of addresses that pictures are downloaded from."""

    kind: Literal["urls"] = Field(default="urls", description="The kind of source.")
    path: str = Field(description="A .parquet, .csv, .tsv or .jsonl file of rows, or a folder of such files.")
    url_column: str = Field(default="url", description="Column of http:// and https:// addresses.")
    caption_column: str | None = Field(
        default="caption", description="A caption a row, or a list of them; null: no captions."
    )
    language_column: str | None = Field(default=None, description="Column of the captions' languages; null: none.")
    license_column: str | None = Field(default=None, description="Column of licences; null: none.")
    hash_column: str | None = Field(
        default=None,
        description="Column of digests that the pictures must have (md5, sha256 or sha512, in hex); null: none.",
    )
    allow_licenses: tuple[str, ...] | None = Field(
        default=None, description="Rows under any other licence are rejected; null: none is asked for."
    )


FileSource = FolderSource | WebdatasetSource | ParquetSource
Source = Annotated[FileSource | UrlsSource, Field(discriminator="kind")]


class NetworkConfig(Section):
    """Stage 00 of `kind: urls`: how pictures are downloaded, and which are left alone."""

    user_agent: str = Field(
        default="vlmdata/0.1 (collects pictures for training sets; set network.user_agent to say who you are)",
        min_length=1,
        pattern=r"^[ -~]+$",
        description="Who asks, told to every server; the word before the first / is looked for in robots.txt.",
        json_schema_extra=OPERATIONAL,
    )
    obey_robots: bool = Field(default=True, description="Leave alone what robots.txt disallows.")
    obey_headers: bool = Field(
        default=True, description="Leave alone what X-Robots-Tag, TDM reservations or the picture's metadata reserve."
    )
    allow_networks: tuple[IpNetwork, ...] = Field(
        default=(),
        description="Private networks that may be asked, such as 127.0.0.2/32; all others are refused.",
        json_schema_extra=OPERATIONAL,
    )
    concurrency: PositiveInt = Field(
        default=64, le=4_096, description="Requests under way in one process.", json_schema_extra=OPERATIONAL
    )
    per_host: PositiveInt = Field(
        default=16, description="Requests under way at one host.", json_schema_extra=OPERATIONAL
    )
    host_delay_s: NonNegativeFloat = Field(
        default=0, description="Seconds between the starts of two requests at one host.", json_schema_extra=OPERATIONAL
    )
    retries: NonNegativeInt = Field(
        default=2, le=10, description="Further tries of what may pass.", json_schema_extra=OPERATIONAL
    )
    connect_timeout_s: PositiveFloat = Field(
        default=10, description="Seconds to connect.", json_schema_extra=OPERATIONAL
    )
    first_byte_timeout_s: PositiveFloat = Field(
        default=15,
        description="Seconds to the first byte, and between two.",
        json_schema_extra=OPERATIONAL,
    )
    timeout_s: PositiveFloat = Field(
        default=60, description="Seconds for a picture, redirects included.", json_schema_extra=OPERATIONAL
    )
    max_bytes: PositiveInt = Field(default=50_000_000, description="A larger picture is not downloaded.")
    max_redirects: NonNegativeInt = Field(default=5, le=20, description="Redirects that are followed.")


class FilterConfig(Section):
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


class DedupConfig(Section):
    """Stage 01: near-duplicates by 64-bit pHash."""

    max_distance: int = Field(default=8, ge=0, le=16, description="Hamming distance that makes a duplicate.")
    confirm: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Cosine of the embeddings by quality.model that duplicates must have, too; null: the hash decides.",
    )

    def settings(self) -> dict[str, Any]:
        """Where nothing is confirmed, checkpoints are those of a build that knows no such thing."""
        return {name: value for name, value in super().settings().items() if value is not None}


class Price(Section):
    """What a model costs, in US dollars; a picture counts as a number of input tokens."""

    input: NonNegativeFloat = Field(description="Dollars for a million input tokens.")
    output: NonNegativeFloat = Field(description="Dollars for a million output tokens.")
    image_tokens: NonNegativeInt = Field(
        default=1_600, description="Input tokens that one picture of at most max_side px counts as, at most."
    )


class CaptionConfig(Section):
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
    language: str | tuple[str, ...] = Field(
        default="en", description="Language the prompt asks for (BCP 47), or a list of them: a caption in each."
    )
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

    @field_validator("language", mode="before")
    @classmethod
    def _tags_that_differ(cls, value: Any) -> Any:
        tags = list(value) if isinstance(value, list | tuple) else [value]
        told_apart = {tag.lower().replace("_", "-") for tag in tags if isinstance(tag, str)}
        if not tags or len(told_apart) < len(tags):
            # YAML reads no as false.
            raise ValueError("a tag such as de, or a list of different ones such as [en, 'no'], in quotes if need be")
        return value

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that a caption is asked for in, one or more, in the order of the captions."""
        return (self.language,) if isinstance(self.language, str) else self.language


class LanguageModel(Section):
    """The model that judges captions of one language."""

    model: str = Field(description="starter, starter-multilingual, an open_clip name, hf-hub:…, or a folder.")
    pretrained: str | None = Field(default=None, description="A tag or a local weights file.")
    accept_above: float | Literal["auto"] = Field(default="auto", description="As quality.accept_above.")
    reject_below: float | Literal["auto"] = Field(default="auto", description="As quality.reject_below.")
    calibration: str | None = Field(default=None, description="As quality.calibration.", json_schema_extra=OPERATIONAL)


class RetrievalConfig(Section):
    """Stage 03: do images find their captions? 20 % of 1,000 is the bound for models of CLIP's size."""

    gallery: int = Field(default=1_000, ge=10, description="Images in a gallery; fewer only if the set has fewer.")
    top_k: PositiveInt = Field(default=10, description="The right caption is to be among this many.")
    max_miss_rate: float = Field(
        default=0.20, gt=0, le=1, description="If it is not for this share of images, nothing is exported."
    )
    galleries: PositiveInt = Field(default=5, description="At most so many are drawn; more, if a model's are smaller.")

    @model_validator(mode="after")
    def _larger_than_top_k(self) -> Self:
        if self.gallery <= self.top_k:
            raise ValueError(f"gallery = {self.gallery} with top_k = {self.top_k}: expected a gallery above top_k")
        return self


Scorer = Literal["nsfw", "sharpness", "text"]


class ScoreBounds(Section):
    """What a measurement of a picture may be; without bounds it is a column, and nothing more."""

    reject_below: float | None = Field(default=None, description="A picture that measures less is rejected.")
    reject_above: float | None = Field(default=None, description="A picture that measures more is rejected.")


class QualityConfig(Section):
    """Stage 03: CLIPScore and its bands."""

    model: str = Field(
        default="ViT-B-32", description="starter, starter-multilingual, an open_clip name, hf-hub:…, or a folder."
    )
    pretrained: str | None = Field(default="openai", description="A tag or a local weights file.")
    accept_above: float | Literal["auto"] = Field(
        default="auto", description="A caption scoring above this is accepted; auto: the model's calibration."
    )
    reject_below: float | Literal["auto"] = Field(
        default="auto", description="A caption scoring below this is rejected; between the two it is held."
    )
    calibration: str | None = Field(
        default=None,
        description="A file that `vlmdata calibrate` made, for bounds that are auto; null: the model's own.",
        json_schema_extra=OPERATIONAL,
    )
    languages: dict[str, LanguageModel] = Field(
        default_factory=dict, description="Models for languages that `model` does not know."
    )
    unlabelled_language: str = Field(default="en", description="Language of captions that name none.")
    unverified_languages: Literal["hold", "export"] = Field(
        default="hold", description="Captions that no model at hand can judge: held, or exported unjudged."
    )
    printed_text_drop: float | None = Field(
        default=None,
        gt=0,
        description="Score the mirrored picture as well, and mark a caption whose score falls by more than this:"
        " it may be printed in the picture; null: do not.",
    )
    scorers: dict[Scorer, ScoreBounds] = Field(
        default_factory=dict, description="More measurements of pictures: nsfw, sharpness, text."
    )
    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig)
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU if there is one.", json_schema_extra=OPERATIONAL
    )


Format = Literal["webdataset", "parquet", "llava", "mds", "lance"]


class CaptionMix(Section):
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


class SplitBy(Section):
    """What two pictures share that no two splits may."""

    max_distance: int | None = Field(
        default=14, ge=0, le=16, description="Hashes within this Hamming distance; null: hashes may."
    )
    confirm: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Cosine that pictures with close hashes must have as well; null: the hashes decide.",
    )
    cosine: float | None = Field(
        default=0.95, gt=0, le=1, description="Embeddings by quality.model of this cosine or more; null: those may."
    )
    captions: bool = Field(default=False, description="A caption, case and punctuation aside.")
    caption_cosine: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Captions whose embeddings, by the model that judged both, have this cosine or more, such as 0.95,"
        " from which the retrieval check takes two for the same; null: those may.",
    )

    def settings(self) -> dict[str, Any]:
        """Where looks of captions do not count, splits and exports are those of a build that knows no such thing."""
        unsaid = {"caption_cosine"} if self.caption_cosine is None else set()
        return {name: value for name, value in super().settings().items() if name not in unsaid}


class Decontamination(Section):
    """Pictures of evaluation sets, which are not to be trained on."""

    lists: tuple[str, ...] = Field(
        default=(), description="Files that `vlmdata decontaminate` made.", json_schema_extra=OPERATIONAL
    )
    max_distance: int = Field(default=8, ge=0, le=16, description="Hamming distance that makes one of theirs.")
    cosine: float | None = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Cosine of the embeddings that makes one of theirs, where a list has them; null: hashes alone.",
    )


def _add_up(shares: dict[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        raise ValueError(f"shares that add up to 1, not {total:.6g}")
    return shares


SplitName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Dimension = Literal["source", "language", "size", "score_decile"]
Share = Annotated[float, Field(ge=0, le=1)]


class Selection(Section):
    """How much of what is exported."""

    top_fraction: float | None = Field(
        default=None, gt=0, le=1, description="This share of the samples, those of the best CLIPScore; null: all."
    )
    weights: dict[Dimension, dict[str, Share]] = Field(
        default_factory=dict,
        description="The share of a group's samples that is drawn, by source (a host or a folder), language of the"
        " best caption, size (224-255, …) or score_decile (1 to 10); * names every other group.",
    )
    caps: dict[Dimension, dict[str, NonNegativeInt]] = Field(
        default_factory=dict, description="The most samples of a group, the best by score; groups as in weights."
    )


def _hex_color(text: str) -> str:
    from PIL import ImageColor

    try:
        written = bytes(ImageColor.getrgb(text)).hex()
    except ValueError:
        written = ""
    if len(written) != len("rrggbb"):
        raise ValueError("an opaque colour: a name such as white, or '#rrggbb' in quotes")
    return f"#{written}"


PictureFormat = Literal["jpg", "png", "webp"]
Interpolation = Literal["lanczos", "bicubic", "bilinear", "hamming", "box", "nearest"]
Position = Literal["center", "top", "bottom", "left", "right", "top-left", "top-right", "bottom-left", "bottom-right"]


class PixelsConfig(Section):
    """What happens to pictures on their way out: never enlarged, never distorted."""

    mode: Literal["keep", "resize", "pad"] = Field(
        default="keep",
        description="keep: as large as they are; resize: no larger than side; pad: fitted into a square of side.",
    )
    side: PositiveInt | None = Field(
        default=None,
        le=16_383,  # a WebP can be no larger
        validate_default=True,
        description="Pixels, for resize and pad; a smaller picture stays as small as it is.",
    )
    by: Literal["longest", "shorter"] = Field(default="longest", description="Which side resize brings to side.")
    color: Annotated[str, AfterValidator(_hex_color)] = Field(
        default="#ffffff", description="What pad puts around a picture: a name, or #rrggbb."
    )
    position: Position = Field(default="center", description="Where in its square pad puts a picture.")
    interpolation: Interpolation = Field(default="lanczos", description="Pillow's filter of that name.")
    formats: tuple[PictureFormat, ...] = Field(
        default=("jpg", "png", "webp"),
        min_length=1,
        description="What may leave; a picture in one of these that needs no change keeps its compressed stream.",
    )
    encode_as: Literal["auto", "jpg", "png", "webp"] = Field(
        default="auto",
        description="What others become; auto: png if the source was lossless, else jpg, or the nearest in formats.",
    )

    @field_validator("side")
    @classmethod
    def _side_goes_with_a_mode(cls, side: int | None, info: ValidationInfo) -> int | None:
        mode = info.data.get("mode")
        if side is None and mode in ("resize", "pad"):
            raise ValueError(f"pixels, such as 512, with mode = {mode!r}")
        if side is not None and mode == "keep":
            raise ValueError("null with mode = 'keep', or mode = 'resize' or 'pad'")
        return side

    @field_validator("by", "color", "position", "interpolation")
    @classmethod
    def _means_something(cls, value: str, info: ValidationInfo) -> str:
        modes = _MODES_OF[str(info.field_name)]
        default = cls.model_fields[str(info.field_name)].default
        if value != default and info.data.get("mode", modes[0]) not in modes:
            raise ValueError(f"{default!r} with mode = {info.data['mode']!r}, or mode = {_either(modes)}")
        return value

    @field_validator("encode_as")
    @classmethod
    def _may_leave(cls, value: str, info: ValidationInfo) -> str:
        formats = info.data.get("formats", ())
        if value != "auto" and formats and value not in formats:
            raise ValueError(f"auto or one of export.pixels.formats, which are {', '.join(formats)}")
        return value

    @property
    def ask_for_anything(self) -> bool:
        """Whether any picture leaves other than it would without this section."""
        return self.settings() != PixelsConfig().settings()

    def settings(self) -> dict[str, Any]:
        """The same for the same formats, in whatever order they were written."""
        return {**super().settings(), "formats": sorted(set(self.formats))}


_MODES_OF: dict[str, tuple[str, ...]] = {
    "by": ("resize",),
    "color": ("pad",),
    "position": ("pad",),
    "interpolation": ("resize", "pad"),
}


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(map(repr, words))


class ExportConfig(Section):
    """Stage 04: files for a trainer."""

    formats: tuple[Format, ...] = Field(
        default=("webdataset", "parquet"),
        min_length=1,
        description=f"Some of {', '.join(get_args(Format))}.",
    )
    path: str | None = Field(
        default=None,
        description="A folder or s3:// URL to copy the export to; null: it lies under 04_final in the store.",
        json_schema_extra=OPERATIONAL,
    )
    samples_per_shard: PositiveInt = Field(default=1_000, description="Samples in one exported shard, at most.")
    bytes_per_shard: PositiveInt = Field(
        default=256 << 20,
        le=2 << 30,
        description="Bytes of pictures, as the source has them, in one exported shard, at most; it is made in memory.",
    )
    increments: bool = Field(
        default=False,
        description="Write only what the version before has not; its other files stay, and belong to this one.",
    )
    captions: CaptionMix = Field(default_factory=CaptionMix)
    splits: Annotated[dict[SplitName, Share], AfterValidator(_add_up)] | None = Field(
        default=None, description="Shares that add up to 1, such as {train: 0.98, validation: 0.02}; null: one set."
    )
    split_by: SplitBy = Field(default_factory=SplitBy)
    decontaminate: Decontamination = Field(default_factory=Decontamination)
    select: Selection = Field(default_factory=Selection)
    pixels: PixelsConfig = Field(default_factory=PixelsConfig)
    jpeg_quality: int = Field(
        default=95, ge=50, le=100, description="Of pictures that are encoded anew, as jpg or lossy webp."
    )


Severity = Literal["stop", "warn"]


class GateBounds(Section):
    """What a figure may be, and what happens if it is not."""

    at_least: float | None = Field(default=None, description="Less than this is too little.")
    at_most: float | None = Field(default=None, description="More than this is too much.")
    severity: Severity = Field(default="stop", description="stop: exit 3, and nothing is exported; warn: it is said.")


class GatesConfig(Section):
    """Rules over a run's figures, beside those that every run is held to."""

    health: dict[str, GateBounds] = Field(
        default_factory=dict, description="By name of a health figure, such as mean_score or duplicates_removed."
    )
    languages: dict[str, GateBounds] = Field(
        default_factory=dict, description="Share of kept captions in a language, by its tag."
    )
    recall_at_10: GateBounds | None = Field(
        default=None, description="R@10, image to text, of the would-be export; null: quality.retrieval alone decides."
    )
    severities: dict[str, Severity] = Field(
        default_factory=dict, description="stop or warn, by name of one of the rules that every run is held to."
    )

    @property
    def ask_of_figures(self) -> bool:
        """Whether a run's figures are wanted before it exports anything."""
        return bool(self.health or self.languages or self.recall_at_10)


def dataset_name(value: str) -> str:
    """The value, if it can name a dataset.

    Raises:
        ValueError: it cannot; says what was expected.
    """
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    if not 0 < len(value) <= 100 or value[0] in ".-" or not set(value) <= allowed:
        raise ValueError("a name of letters, digits, '-', '_' and '.', at most 100, not starting with '.' or '-'")
    return value


class BuildConfig(Section):
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
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    opt_out: str | None = Field(
        default=None,
        description="A file of what is to be left alone, one a line: a domain, an address, sha256:… or phash:….",
        json_schema_extra=OPERATIONAL,
    )
    filter: FilterConfig = Field(default_factory=FilterConfig)
    dedup: DedupConfig = Field(default_factory=DedupConfig)
    caption: CaptionConfig = Field(default_factory=CaptionConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    gates: GatesConfig = Field(default_factory=GatesConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    report: bool = Field(
        default=True,
        description="Leave a page with pictures beside the run's records, if the extra `report` is installed.",
        json_schema_extra=OPERATIONAL,
    )
