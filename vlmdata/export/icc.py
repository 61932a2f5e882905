"""Small ICC profiles, for pictures that say their colours in other words.

ICC.1:2022: a matrix of three colorants and a curve (8.3.3), or a curve alone
for grey (8.3.4). Colorants are those under D50, by the Bradford transform.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Chromaticities(NamedTuple):
    """CIE 1931 x and y of the primaries and of white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


Curve = tuple[float, ...]
"""Parameters of a `parametricCurveType`: (g,) for a plain power, (g, a, b, c, d) for one with a linear foot."""

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_FUNCTION_TYPES = {1: 0, 5: 3}


def rgb_profile(colours: Chromaticities, curve: Curve) -> bytes:
    """The profile of an RGB space with one curve for all channels.

    Raises:
        ValueError: the primaries span no space, or what follows from them is out of a profile's range.
    """
    try:
        red, green, blue = _colorants(colours).T
        colorants = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)}
        curves = dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], _curve(curve))
    except (ZeroDivisionError, np.linalg.LinAlgError, struct.error) as error:
        raise ValueError(f"no colour space: {error}") from error
    return _profile(b"RGB ", {b"wtpt": _xyz(*_D50), **colorants, **curves})


def grey_profile(curve: Curve) -> bytes:
    """The profile of a grey axis."""
    return _profile(b"GRAY", {b"wtpt": _xyz(*_D50), b"kTRC": _curve(curve)})


def _colorants(colours: Chromaticities) -> npt.NDArray[np.float64]:
    """XYZ (rows) of red, green and blue (columns) at full strength, white being D50."""
    primaries = np.array([_tristimulus(*primary) for primary in colours[:3]]).T
    white = np.array(_tristimulus(*colours.white))
    matrix = primaries * np.linalg.solve(primaries, white)
    gains = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ gains @ _BRADFORD @ matrix
    return adapted


def _tristimulus(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(parameters: Curve) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", _FUNCTION_TYPES[len(parameters)], 0) + _fixed(parameters)


def _fixed(values: tuple[float, ...]) -> bytes:
    """Numbers as s15Fixed16."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _profile(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(body))
        data += body
    head = struct.pack(">4xI4s4s4s12x4s28x12s48x", 0x0430_0000, b"mntr", space, b"XYZ ", b"acsp", _fixed(_D50))
    whole = head + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", 4 + len(whole)) + whole
