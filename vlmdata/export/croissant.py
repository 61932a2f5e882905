"""croissant.json: the export as Croissant 1.0 describes data sets, for tools that load what they were never told of.

http://mlcommons.org/croissant/1.0. Every file with its sha256, and its fields
as records: parquet by columns, WebDataset by the members of its tars.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vlmdata.export.card_head import OTHER, hub_licence, languages
from vlmdata.export.tallies import Tallies

VERSION = "http://mlcommons.org/croissant/1.0"
_ENCODINGS = {"parquet": "application/x-parquet", "tar": "application/x-tar"}
_CAPTION = {
    "text": ("sc:Text", "the caption"),
    "lang": ("sc:Text", "BCP 47 tag, as declared"),
    "origin": ("sc:Text", "source, duplicate:<sample id> or model:<name>|<prompt>"),
    "score": ("sc:Float", "CLIPScore of the pair"),
    "model": ("sc:Text", "the model that gave the score"),
    "printed_text": ("sc:Boolean", "the caption may be printed in the picture"),
}
_BEST = ("sc:Text", "the best caption by score")
_SAMPLE = {
    "id": ("sc:Text", "32 hex digits that follow from the picture and its key"),
    "key": ("sc:Text", "the source's own name for the sample"),
    "sha256": ("sc:Text", "of the source's bytes"),
    "url": ("sc:Text", "where the picture came from, if the source says"),
    "license": ("sc:Text", "as the source states it"),
    "source": ("sc:Text", "what the bytes were read from"),
    "width": ("sc:Integer", "px, upright"),
    "height": ("sc:Integer", "px, upright"),
    "phash": ("sc:Text", "64-bit perceptual hash, hexadecimal"),
}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the standard, word for word."""

_CACHE = (
    "mlcroissant keeps what it takes out of a tar under the tar's name, whatever set it is of: "
    "name a folder of its own for this export in CROISSANT_CACHE."
)

Json = dict[str, Any]


def croissant(manifest: Mapping[str, Any], tallies: Tallies) -> bytes:
    """The description of the files that a manifest lists; it follows from them and from what is counted."""
    files = manifest["files"]
    there = {str(file["format"]) for file in files}
    described = [parts(files) for name, parts in _FORMATS.items() if name in there]
    told = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": str(manifest["dataset"]),
        "description": (
            f"{manifest['samples']:,} pictures with {manifest['captions']:,} captions, made by vlmdata. "
            "README.md tells where they come from and what was left out."
        ),
        "conformsTo": VERSION,
        "version": "1.0.0",
        "identifier": manifest["export"],
        "keywords": ["image-text pairs", "vision-language"],
        "license": _licences(tallies.get("license", Counter())),
        "inLanguage": languages(tallies.get("language", Counter())),
        "distribution": [*map(_file, files), *(one for sets, _ in described for one in sets)],
        "recordSet": [one for _, records in described for one in records],
    }
    said = {name: value for name, value in told.items() if value or name in ("distribution", "recordSet")}
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def _licences(counts: Mapping[str | None, int]) -> list[str]:
    """Addresses of those that have one, others in the source's words."""
    return sorted({_licence(value.strip()) for value in counts if value and value.strip()})


def _licence(stated: str) -> str:
    """An identifier as SPDX writes them is one of its addresses."""
    known = hub_licence(stated) != OTHER and re.fullmatch(r"[A-Za-z0-9.+-]+", stated)
    return f"https://spdx.org/licenses/{stated}" if known else stated


def _file(file: Mapping[str, Any]) -> Json:
    path = str(file["path"])
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{file['bytes']} B",
        "encodingFormat": _ENCODINGS.get(path.rpartition(".")[2], "application/octet-stream"),
        "sha256": file["sha256"],
    }


def _file_set(name: str, includes: Sequence[str], encodings: Sequence[str], within: Sequence[str] = ()) -> Json:
    contained = {"containedIn": [{"@id": path} for path in within]} if within else {}
    told = {"@type": "cr:FileSet", "@id": name, "name": name, **contained}
    return {**told, "encodingFormat": _one(encodings), "includes": _one(includes)}


def _one(values: Sequence[str]) -> str | Sequence[str]:
    return values[0] if len(values) == 1 else values


def _parquet(files: Sequence[Mapping[str, Any]]) -> tuple[list[Json], list[Json]]:
    """Columns are fields; the picture is a struct of bytes and name."""
    name = "parquet"
    texts = {**_SAMPLE, "caption": _BEST, "extra": ("sc:Text", "further columns of the source's row, as JSON")}
    fields = [
        _field(name, "image", "sc:ImageObject", "the picture", _column("image", {"jsonPath": "bytes"})),
        *(_field(name, field, *said, _column(field)) for field, said in texts.items()),
        _captions(name),
    ]
    folders = sorted({str(PurePosixPath(file["path"]).parent) for file in files if file["format"] == name})
    sets = [_file_set("parquet-files", [f"{folder}/*.parquet" for folder in folders], [_ENCODINGS["parquet"]])]
    return sets, [_record_set(name, "One sample a row.", fields)]


def _webdataset(files: Sequence[Mapping[str, Any]]) -> tuple[list[Json], list[Json]]:
    """Members of one name are one sample. A tar's JSON is told as text: nobody reads into it from here."""
    tars = [str(file["path"]) for file in files if file["format"] == "webdataset"]
    texts, jsons = "webdataset-text", "webdataset-json"
    pictures = ["image/jpeg", "image/png", "image/webp"]
    sets = [
        _file_set("webdataset-images", ["*.jpg", "*.png", "*.webp"], pictures, tars),
        _file_set(f"{texts}-files", ["*.txt"], ["text/plain"], tars),
        _file_set(f"{jsons}-files", ["*.json"], ["application/json"], tars),
    ]
    joined = {**_stem("webdataset", "webdataset-images"), "references": {"field": {"@id": f"{texts}/id"}}}
    fields = [
        joined,
        _field("webdataset", "image", "sc:ImageObject", "the picture", _content("webdataset-images")),
        _field("webdataset", "caption", *_BEST, {"field": {"@id": f"{texts}/caption"}}),
    ]
    story = f"{', '.join(_SAMPLE)}, extra and captions ({', '.join(_CAPTION)}), as JSON"
    return sets, [
        _record_set("webdataset", f"One sample a picture, with its best caption. {_CACHE}", fields),
        _text_set(texts, "The best captions.", "caption", _BEST),
        _text_set(jsons, "What else is said of each sample.", "json", ("sc:Text", story)),
    ]


def _text_set(name: str, description: str, field: str, said: tuple[str, str]) -> Json:
    """Records of members that are text, of the file set of that name."""
    files = f"{name}-files"
    return _record_set(name, description, [_stem(name, files), _field(name, field, *said, _content(files))])


def _stem(records: str, files: str) -> Json:
    """The sample's id: the name of a member up to the dot."""
    named = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)"}}
    return _field(records, "id", *_SAMPLE["id"], {"fileSet": {"@id": files}, **named})


def _content(files: str) -> Json:
    return {"fileSet": {"@id": files}, "extract": {"fileProperty": "content"}}


_FORMATS: dict[str, Callable[[Sequence[Mapping[str, Any]]], tuple[list[Json], list[Json]]]] = {
    "parquet": _parquet,
    "webdataset": _webdataset,
}
"""What is told of a format's records; of others the files alone are listed."""


def _record_set(name: str, description: str, fields: Sequence[Json]) -> Json:
    told = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description}
    return {**told, "key": {"@id": f"{name}/id"}, "field": list(fields)}


def _field(records: str, name: str, type_: str, description: str, source: Json) -> Json:
    told = {"@type": "cr:Field", "@id": f"{records}/{name}", "name": f"{records}/{name}", "description": description}
    return {**told, "dataType": type_, "source": source}


def _captions(records: str) -> Json:
    """All captions of a sample: a field in which fields are repeated."""
    name = f"{records}/captions"
    parts = [
        _field(records, f"captions/{part}", *said, _column("captions", {"jsonPath": part}))
        for part, said in _CAPTION.items()
    ]
    told = {"@type": "cr:Field", "@id": name, "name": name, "description": "all captions, in their order"}
    return {**told, "repeated": True, "subField": parts}


def _column(name: str, transform: Json | None = None) -> Json:
    told = {"fileSet": {"@id": "parquet-files"}, "extract": {"column": name}}
    return {**told, "transform": transform} if transform else told
