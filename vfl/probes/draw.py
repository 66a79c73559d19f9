"""Drawing: canvases, pasted sprites and words. Everything is deterministic: what varies is drawn by the caller's rng.

Shaded solids are in solids.py. Boxes are (x0, y0, x1, y1) in pixels, the right and lower edge exclusive. Colours are
(r, g, b) in 0..255.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vfl.errors import InputError

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

# The DejaVu fonts that matplotlib ships, so that words look the same on every machine.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold")


def blank(size: int | tuple[int, int], colour: Colour = (255, 255, 255)) -> Image.Image:
    """An RGB canvas of one colour; `size` is a side or (width, height)."""
    return Image.new("RGB", (size, size) if isinstance(size, int) else size, colour)


def paste(image: Image.Image, sprite: Image.Image, box: Box) -> None:
    """Draws an RGBA sprite onto `image`, resized to fill `box`."""
    size = (box[2] - box[0], box[3] - box[1])
    if sprite.size != size:
        # Premultiplied alpha: the colour of transparent pixels must not bleed into the edge.
        sprite = sprite.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    image.paste(sprite, box[:2], sprite)


@lru_cache(maxsize=1)
def font_folder() -> Path:
    spec = find_spec("matplotlib")  # located without importing it: the import costs half a second
    assert spec is not None, "matplotlib is a dependency of this package"
    assert spec.origin is not None, spec
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@lru_cache(maxsize=256)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A DejaVu font by name (see FONTS), `size` in pixels per em.

    Raises:
        InputError: the name is not in FONTS.
    """
    if name not in FONTS:
        raise InputError(f"no font is called {name!r}; choose from: {', '.join(FONTS)}")
    # The basic layout engine, so that an installed libraqm changes no picture.
    return ImageFont.truetype(str(font_folder() / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


def word_size(text: str, font_name: str, size: int) -> tuple[int, int]:
    """Width and height in pixels of the drawn word: its advance by the height of its ink."""
    x0, y0, x1, y1 = font(font_name, size).getbbox(text)
    return int(x1 - x0), int(y1 - y0)


def word(
    image: Image.Image, text: str, corner: tuple[int, int], font_name: str, size: int, colour: Colour = (0, 0, 0)
) -> Box:
    """Draws a word whose box starts at `corner` (left, top).

    Returns:
        The box: the word's advance wide, its ink high.
    """
    x0, y0, _, _ = font(font_name, size).getbbox(text)
    ImageDraw.Draw(image).text((corner[0] - x0, corner[1] - y0), text, font=font(font_name, size), fill=colour)
    width, height = word_size(text, font_name, size)
    return (corner[0], corner[1], corner[0] + width, corner[1] + height)
