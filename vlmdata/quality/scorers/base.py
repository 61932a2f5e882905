"""What a scorer is: one number a picture, under a name that changes when the numbers would."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import ClassVar, Protocol

from PIL import Image

from vlmdata.errors import ConfigError
from vlmdata.models.source import content_hash


class Scorer(Protocol):
    """A measurement of pictures; it knows no bounds.

    Attributes:
        name: its key in the config.
        column: where `schema.CHECKED` keeps what it measures.
        too_little, too_much: reason codes of a picture that measures less or more than it may.
    """

    name: ClassVar[str]
    column: ClassVar[str]
    too_little: ClassVar[str]
    too_much: ClassVar[str]

    def check(self) -> None:
        """Find out whether it can work here, without loading a model.

        Raises:
            ConfigError: a package or a model is missing; one line says what to install.
        """
        ...

    def identity(self) -> str:
        """Name, version and the weights' hash: all that decides what it measures, beside the picture."""
        ...

    def measure(self, image: Image.Image) -> float:
        """The measurement of an upright RGB picture, which it leaves as it is; called from several threads at once."""
        ...


def require(scorer: str, module: str, package: str, extra: str) -> None:
    """Make sure that a scorer's package is installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"quality.scorers.{scorer}: needs the package {package}, which is not installed;"
            f" install vlmdata[{extra}], or leave {scorer} out"
        )


def file_of(scorer: str, module: str, name: str) -> Path:
    """A model's file in an installed package, found without importing it.

    Raises:
        ConfigError: this version of the package has no such file.
    """
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise ConfigError(
        f"quality.scorers.{scorer}: the installed {module} has no {name}; install the version that vlmdata asks for"
    )


def named(scorer: str, package: str, weights: list[Path]) -> str:
    """An identity: the scorer with its version, the package's version, the hash of the weights."""
    return f"{scorer} {package}=={importlib.metadata.version(package)} {content_hash(weights)}"
