"""What a PNG's own chunks say of its colours, as an ICC profile.

PNG (third edition), 11.3.2: cICP before iCCP before sRGB before gAMA and cHRM.
The code points are those of ITU-T H.273.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping

from vlmdata.export.icc import Chromaticities, Curve, grey_profile, rgb_profile

_D65, _C = (0.3127, 0.329), (0.31, 0.316)
_BT709 = Chromaticities((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65)
_BT601 = Chromaticities((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65)
_P3 = Chromaticities((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65)
_PRIMARIES = {
    1: _BT709,
    4: Chromaticities((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Chromaticities((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: _BT601,
    7: _BT601,
    9: Chromaticities((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    11: _P3._replace(white=(0.314, 0.351)),
    12: _P3,
}
_SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, Curve] = {
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
    **dict.fromkeys([1, 6, 14, 15], _BT709_CURVE),
}
"""HDR's curves (PQ, HLG) are not among them: there is no one way to bring them into 8 bits."""

_GAMMA_OF_SRGB = 1 / 2.2
_NEAR = 0.05
_GAMMAS = (0.1, 5.0)


def profile_of(chunks: Mapping[bytes, bytes], embedded: bytes | None, *, grey: bool) -> bytes | None:
    """The profile that applies: of the chunks' bodies by name, or the one embedded; None: sRGB, or not said."""
    coded = _of_code_points(chunks.get(b"cICP", b""), grey=grey)
    if coded or embedded:
        return coded or embedded
    return None if b"sRGB" in chunks else _of_gamma(chunks, grey=grey)


def _of_code_points(body: bytes, *, grey: bool) -> bytes | None:
    """None: no cICP, or one that says what is not known here."""
    if len(body) != 4:
        return None
    primaries, transfer, matrix, full_range = body
    if (matrix, full_range) != (0, 1) or primaries not in _PRIMARIES or transfer not in _CURVES:
        return None
    return _profile(_PRIMARIES[primaries], _CURVES[transfer], grey=grey)


def _of_gamma(chunks: Mapping[bytes, bytes], *, grey: bool) -> bytes | None:
    """A curve without primaries has sRGB's primaries, primaries without a curve have sRGB's curve."""
    gamma = _number(chunks.get(b"gAMA"))
    colours = _chromaticities(chunks.get(b"cHRM"))
    # Files that are sRGB say 1/2.2 in gAMA, for readers that know no better.
    usual = gamma is None or math.isclose(gamma, _GAMMA_OF_SRGB, rel_tol=_NEAR)
    if usual and (grey or colours is None or _is_close(colours, _BT709)):
        return None
    curve = _SRGB_CURVE if gamma is None else (1 / gamma,)
    return _profile(colours or _BT709, curve, grey=grey)


def _number(body: bytes | None) -> float | None:
    if body is None or len(body) != 4:
        return None
    gamma = int.from_bytes(body, "big") / 100_000
    return gamma if _GAMMAS[0] <= gamma <= _GAMMAS[1] else None


def _chromaticities(body: bytes | None) -> Chromaticities | None:
    if body is None or len(body) != 32:
        return None
    x, y, *rest = (value / 100_000 for value in struct.unpack(">8I", body))
    return Chromaticities((rest[0], rest[1]), (rest[2], rest[3]), (rest[4], rest[5]), (x, y))


def _is_close(one: Chromaticities, other: Chromaticities) -> bool:
    pairs = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
    return all(math.isclose(a, b, abs_tol=_NEAR / 10) for a, b in pairs)


def _profile(colours: Chromaticities, curve: Curve, *, grey: bool) -> bytes | None:
    try:
        return grey_profile(curve) if grey else rgb_profile(colours, curve)
    except ValueError:
        # Primaries that no light can have.
        return None
