"""The tables that stages hand on: their columns, types and units.

Pictures, samples and captions are three tables with one key, so that a stage
reads (and its checkpoint key depends on) only what it looks at.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def _field(name: str, type_: pa.DataType, note: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"note": note})


ID = _field("id", pa.string(), "sample id: 32 hex digits of sha256(image sha256, source key)", nullable=False)
KEY = _field("key", pa.string(), "the source's own name for the sample", nullable=False)
SHA256 = _field("sha256", pa.string(), "hex digest of the original bytes", nullable=False)

CAPTION_FIELDS = [
    _field("text", pa.string(), "the caption", nullable=False),
    _field("lang", pa.string(), "BCP 47 tag as declared; null: not declared"),
    _field("origin", pa.string(), "source | duplicate:<sample id> | model:<name>", nullable=False),
]

LISTING = pa.schema(
    [
        KEY,
        _field("location", pa.string(), "file that holds the picture, below the source's root"),
        _field("member", pa.string(), "tar member or parquet row group and row; null: the file itself"),
        _field("offset", pa.int64(), "first byte in the file, or row within the row group"),
        _field("size", pa.int64(), "bytes, of parquet an estimate; null: not known before reading"),
        _field("version", pa.string(), "changes when the file changes: size and mtime, or ETag"),
        _field("url", pa.string(), "where the picture came from, if the source says"),
        _field("license", pa.string(), "as the source states it"),
        _field("missing", pa.bool_(), "named by a caption row, but not there", nullable=False),
        _field("captions", pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string())])), "as given"),
        _field(
            "sha256",
            pa.string(),
            "hex digest that the bytes must have, an md5, sha256 or sha512; null: none is asked for",
        ),
        _field("extra", pa.string(), "further columns of the source's row, as JSON; null: there are none"),
        _field("refused", pa.string(), "reason code for which it is not read at all; null: it is"),
    ]
)
"""What a source holds, found without reading a picture."""

SAMPLES = pa.schema(
    [
        ID,
        KEY,
        SHA256,
        _field("bytes", pa.int64(), "size of the original file, bytes"),
        _field("source", pa.string(), "path or URL the bytes were read from"),
        _field("url", pa.string(), "original address, if the source says"),
        _field("license", pa.string(), "as the source states it"),
        _field("extra", pa.string(), "further columns of the source's row, as JSON; null: there are none"),
    ]
)

IMAGES = pa.schema([ID, _field("image", pa.large_binary(), "original bytes, untouched", nullable=False)])

FETCHES = pa.schema(
    [
        _field("url", pa.string(), "as the list has it; of a row without one, its key", nullable=False),
        _field("outcome", pa.string(), "kept | rejected | failed", nullable=False),
        _field("code", pa.string(), "stable reason code; null: kept"),
        _field("detail", pa.string(), "for people"),
        _field("retryable", pa.bool_(), "a rerun may mend it", nullable=False),
        _field("http_status", pa.int32(), "of the last answer; null: none came"),
        _field(
            "attempts",
            pa.int32(),
            "requests sent, redirects and further tries among them; 0: not asked",
            nullable=False,
        ),
        _field("final_url", pa.string(), "where the redirects led; null: nothing was asked"),
        _field("etag", pa.string(), "as the server sent it"),
        _field("last_modified", pa.string(), "as the server sent it"),
        _field("content_type", pa.string(), "as the server sent it"),
        _field("bytes", pa.int64(), "size of the body"),
        _field("sha256", pa.string(), "hex digest of the body"),
        _field("seconds", pa.float32(), "from its turn to its end, pauses included"),
        _field("time", pa.timestamp("ms", "UTC"), "when it ended; null: nothing was asked"),
    ]
)
"""How each row of a list of addresses was fetched."""

MADE = "model:"
"""How the origin of a caption begins that a model wrote."""
AGAIN = "|again-"
"""What the origin of a caption holds that was asked for once more."""

CAPTIONS = pa.schema(
    [
        ID,
        _field("caption_id", pa.string(), "16 hex digits of sha256(id, text, lang, origin)", nullable=False),
        *CAPTION_FIELDS,
    ]
)

REJECTS = pa.schema(
    [
        ID,
        KEY,
        _field("outcome", pa.string(), "rejected | held | failed", nullable=False),
        _field("code", pa.string(), "stable reason code", nullable=False),
        _field("value", pa.float64(), "what was measured"),
        _field("bound", pa.float64(), "what it was held against"),
        _field("detail", pa.string(), "for people"),
        _field("related", pa.string(), "id of the sample it duplicates"),
        _field("retryable", pa.bool_(), "a rerun may mend it", nullable=False),
    ]
)
"""Samples that do not go on, and why: one row each, in every deciding stage."""

CAPTION_REJECTS = pa.schema(
    [
        *CAPTIONS,
        _field("outcome", pa.string(), "rejected | held | failed", nullable=False),
        _field("code", pa.string(), "stable reason code", nullable=False),
        _field("value", pa.float64(), "what was measured"),
        _field("bound", pa.float64(), "what it was held against"),
        _field("detail", pa.string(), "for people"),
    ]
)

FACTS = pa.schema(
    [
        ID,
        _field("error", pa.string(), "reason code if the picture did not decode whole; null: it did"),
        _field("detail", pa.string(), "the decoder's own words"),
        _field("retryable", pa.bool_(), "a time-out, which a calmer machine may mend", nullable=False),
        _field("format", pa.string(), "JPEG, PNG, WEBP, …"),
        _field("mode", pa.string(), "Pillow mode as stored"),
        _field("width", pa.int32(), "px, upright"),
        _field("height", pa.int32(), "px, upright"),
        _field("frames", pa.int32(), "frames in the file; only the first is used"),
        _field("orientation", pa.int32(), "EXIF orientation as stored, 1: upright"),
        _field("phash", pa.uint64(), "64-bit perceptual hash of the upright RGB picture, transparency on white"),
    ]
)

DUPLICATES = pa.schema(
    [
        ID,
        _field("duplicate_of", pa.string(), "id of the kept sample it is within the radius of", nullable=False),
        _field("distance", pa.int16(), "Hamming distance of the two hashes", nullable=False),
        _field("gives", pa.bool_(), "its captions go to that sample, which was not published yet", nullable=False),
    ]
)

FILTERED = pa.schema(
    [*SAMPLES, *[FACTS.field(name) for name in FACTS.names if name not in {"id", "error", "detail", "retryable"}]]
)
"""Samples that passed the rules: provenance and measurements."""

ATTEMPTS = pa.schema(
    [
        ID,
        _field("key", pa.string(), "the journal's name for this picture and this question", nullable=False),
        _field("outcome", pa.string(), "captioned | failed", nullable=False),
        _field("failure", pa.string(), "transient | permanent | refused | budget; null: captioned"),
        _field("http_status", pa.int32(), "of the last answer; null: none came"),
        _field("attempt", pa.int32(), "1, and one more for each time that somebody wanted another", nullable=False),
        _field("requests", pa.int32(), "sent for this picture in this attempt", nullable=False),
        _field("message", pa.string(), "the last error, secrets masked"),
        _field("input_tokens", pa.int64(), "of the last request, as the API reports them"),
        _field("output_tokens", pa.int64(), "of the last request, as the API reports them"),
        _field("cost", pa.float64(), "dollars for the last request; null: the API did not say what it used"),
        _field("time", pa.timestamp("ms", "UTC"), "when it ended"),
        _field("sent_width", pa.int32(), "px, of the picture as it was sent"),
        _field("sent_height", pa.int32(), "px, of the picture as it was sent"),
        _field("sent_bytes", pa.int64(), "size of the picture as it was sent"),
        _field("sent_tokens", pa.int64(), "most input tokens that the request could count as"),
    ]
)
"""What was asked of the captioner, one row a picture, language and take."""


RETRIEVAL = pa.schema(
    [
        ID,
        _field("caption_id", pa.string(), "the caption that stood for the image", nullable=False),
        _field("text", pa.string(), "its words", nullable=False),
        _field("source", pa.string(), "where the image comes from: a host, or a folder of the source"),
        _field("origin", pa.string(), "who wrote it"),
        _field("language", pa.string(), "the language it was scored in"),
        _field("shard", pa.string(), "where the sample is", nullable=False),
        _field("model", pa.string(), "who looked for it"),
        _field("score", pa.float32(), "CLIPScore of the pair"),
        _field("gallery", pa.int64(), "images in the gallery that it was drawn into", nullable=False),
        _field("to_text", pa.int64(), "rank of the caption among the gallery's, from 1", nullable=False),
        _field("to_image", pa.int64(), "rank of the image among the gallery's, from 1", nullable=False),
    ]
)
"""One row an image that was drawn into a gallery."""

FAILURES = pa.schema(
    [
        ID,
        _field("stage", pa.string(), "00_raw … 03_quality_checked", nullable=False),
        _field("class", pa.string(), "transient | permanent | refused | budget", nullable=False),
        _field("code", pa.string(), "stable reason code", nullable=False),
        _field("http_status", pa.int32(), "of the last answer, if one came"),
        _field("attempts", pa.int32(), "requests sent in the present attempt; 1 where nobody is asked"),
        _field("message", pa.string(), "the last error, secrets masked"),
        _field("time", pa.timestamp("ms", "UTC"), "when it ended, or when its shard's checkpoint was written"),
        _field("asked", pa.string(), "the journal's name for the question"),
        _field("language", pa.string(), "that the caption was asked for in"),
    ]
)
"""The failure ledger, one row a failure."""


def embedding(name: str, dim: int) -> pa.Field:
    """A column of L2-normalised vectors: fixed-size list of `dim` float16."""
    return pa.field(name, pa.list_(pa.float16(), dim), metadata={"note": "L2-normalised"})


SCORES = pa.schema(
    [
        ID,
        _field("caption_id", pa.string(), "which caption", nullable=False),
        _field("score", pa.float32(), "CLIPScore: cosine of image and text embedding; null: not scored"),
        _field("mirrored_score", pa.float32(), "the same of the mirrored picture; null: not taken"),
        _field("model", pa.string(), "model identity: name and, of local weights, their hash"),
        _field("weights", pa.string(), "hash of the model's state dict as it was loaded"),
        _field("preprocessing", pa.string(), "hash of resolution, interpolation, mean and std"),
        _field("precision", pa.string(), "fp32 | bf16"),
        _field("language", pa.string(), "the language it was scored in", nullable=False),
        _field("tokens", pa.int32(), "as the model counts them, marks included; at most one more than it reads"),
        _field("truncated", pa.bool_(), "longer than the model's context"),
        _field("identified", pa.string(), "the language that the text is surely in; null: it is too short to tell"),
        _field("contradicted", pa.bool_(), "the text is in another language than it declares"),
    ]
)

JUDGED_CAPTIONS = pa.schema(
    [
        *CAPTIONS,
        *[SCORES.field(name) for name in SCORES.names if name not in {"id", "caption_id"}],
        _field("printed_text", pa.bool_(), "it may be printed in the picture: mirrored, it scores less by the bound"),
    ]
)
"""Accepted captions; one in a language that nobody could judge has neither score nor model."""

MARKS = pa.schema(
    [
        _field("nsfw", pa.float32(), "probability that it is not safe for work; null: not measured"),
        _field("sharpness", pa.float32(), "variance of its Laplacian; null: not measured"),
        _field("text_area", pa.float32(), "share of its area that text covers; null: not measured"),
    ]
)
"""What scorers measure of a picture, a column a scorer."""

CHECKED = pa.schema(
    [
        *FILTERED,
        _field("best_score", pa.float32(), "best CLIPScore of its accepted captions; null: none of them was scored"),
        *MARKS,
    ]
)


def empty(schema: pa.Schema) -> pa.Table:
    """A table of no rows."""
    return schema.empty_table()


def sample_ids(sha256: list[str], keys: list[str]) -> list[str]:
    """Ids that depend on content and key alone, so that shards can be cut differently."""
    from hashlib import sha256 as digest

    return [digest(f"{content}\n{key}".encode()).hexdigest()[:32] for content, key in zip(sha256, keys, strict=True)]


def caption_table(ids: list[str], texts: list[str], langs: list[str | None], origins: list[str]) -> pa.Table:
    """Captions in long form, (n) rows, with their ids."""
    from hashlib import sha256 as digest

    rows = zip(ids, texts, langs, origins, strict=True)
    caption_ids = [digest("\0".join([i, t, lang or "", o]).encode()).hexdigest()[:16] for i, t, lang, o in rows]
    return pa.table([ids, caption_ids, texts, langs, origins], schema=CAPTIONS)


def filled(schema: pa.Schema, rows: int, **columns: Any) -> pa.Table:
    """A table of `rows` rows; each column an array, or one value for all rows; absent ones are null."""
    arrays = [_column(columns.get(field.name), field.type, rows) for field in schema]
    return pa.table(arrays, schema=schema)


def _column(value: Any, type_: pa.DataType, rows: int) -> Any:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.cast(type_)
    return pa.repeat(pa.scalar(value, type_), rows)
