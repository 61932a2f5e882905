"""Expectations where Great Expectations has none that fits; importing this module imports the library.

Each judges a figure that the stages count over their rows, in a frame of one
row: the library does not look at a million of them. What the figure is about is
a setting, so that a verdict says it.
"""

from __future__ import annotations

from great_expectations.expectations import ExpectColumnMaxToBeBetween


class ExpectNoTwoHashesWithin(ExpectColumnMaxToBeBetween):
    """How many kept pictures have a perceptual hash within `radius` bits of another's: none."""

    radius: int


class ExpectInToEqualOut(ExpectColumnMaxToBeBetween):
    """How many shards' manifests do not account for each of `what`: none."""

    what: str


class ExpectRecallAt10ToBeBetween(ExpectColumnMaxToBeBetween):
    """R@10, image to text, over galleries of `gallery` images."""

    gallery: int


class ExpectHealthFigureToBeBetween(ExpectColumnMaxToBeBetween):
    """A figure of the run's health."""

    figure: str


class ExpectLanguageShareToBeBetween(ExpectColumnMaxToBeBetween):
    """Which share of the kept captions is in `language`, 0 to 1."""

    language: str
