"""What every later stage means by "the picture": upright, RGB, transparency on white.

Pillow alone, so that the decoder process starts in a few hundredths of a second.
"""

from __future__ import annotations

from PIL import Image, ImageOps

ORIENTATION = 0x0112
WHITE = (255, 255, 255)
TILE = 32
"""Side of the tile that a 64-bit pHash is taken from, px."""


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a person sees it: EXIF orientation applied, RGB, transparency on white.

    16-bit greyscale is scaled to 8 bits, where Pillow's own conversion clips.
    """
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        image = eight_bits(image)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        flat = Image.new("RGB", image.size, WHITE)
        flat.paste(layered, mask=layered.getchannel("A"))
        return flat
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greyscale as L, or as LA where one of its levels means transparent."""
    grey = image.convert("I").point(lambda level: level * (1 / 257)).convert("L")
    if image.has_transparency_data:
        grey.putalpha(image.convert("RGBA").getchannel("A"))
    return grey


def tile(image: Image.Image) -> bytes:
    """The 32 × 32 grey tile, 1,024 bytes in rows, that `imagehash.phash` takes its DCT of."""
    return image.convert("L").resize((TILE, TILE), Image.Resampling.LANCZOS).tobytes()
