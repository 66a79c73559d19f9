"""Renders the bundled object pictures once from Debian's fonts-noto-color-emoji.

    apt-get install fonts-noto-color-emoji && python vfl/probes/objects/render.py

Every glyph becomes NAME.png beside this file: 96 x 96 pixels, transparent, 255 colours. The font and so the pictures
are under the SIL Open Font License 1.1 (LICENSE.txt, copied from the Debian package).
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the font's only bitmap size; other sizes are refused by FreeType
SIZE = 96
MARGIN = 2

GLYPHS = {
    "airplane": "\u2708", "anchor": "\u2693", "apple": "\U0001F34E", "backpack": "\U0001F392",
    "banana": "\U0001F34C", "basketball": "\U0001F3C0", "bear": "\U0001F43B", "bed": "\U0001F6CF",
    "bell": "\U0001F514", "bicycle": "\U0001F6B2", "bird": "\U0001F426", "boat": "\u26F5",
    "book": "\U0001F4D5", "bus": "\U0001F68C", "butterfly": "\U0001F98B", "cake": "\U0001F370",
    "camera": "\U0001F4F7", "car": "\U0001F697", "carrot": "\U0001F955", "cat": "\U0001F408",
    "chair": "\U0001FA91", "chicken": "\U0001F414", "clock": "\u23F0", "cow": "\U0001F404",
    "crab": "\U0001F980", "cup": "\u2615", "dog": "\U0001F415", "donut": "\U0001F369",
    "door": "\U0001F6AA", "duck": "\U0001F986", "elephant": "\U0001F418", "fish": "\U0001F41F",
    "flower": "\U0001F33B", "frog": "\U0001F438", "guitar": "\U0001F3B8", "hammer": "\U0001F528",
    "hat": "\U0001F3A9", "horse": "\U0001F40E", "house": "\U0001F3E0", "key": "\U0001F511",
    "laptop": "\U0001F4BB", "lemon": "\U0001F34B", "lion": "\U0001F981", "motorcycle": "\U0001F3CD",
    "mushroom": "\U0001F344", "orange": "\U0001F34A", "owl": "\U0001F989", "pencil": "\u270F",
    "pig": "\U0001F416", "pizza": "\U0001F355", "rabbit": "\U0001F407", "scissors": "\u2702",
    "sheep": "\U0001F411", "shoe": "\U0001F45F", "strawberry": "\U0001F353", "telephone": "\u260E",
    "television": "\U0001F4FA", "tiger": "\U0001F405", "tractor": "\U0001F69C", "train": "\U0001F682",
    "tree": "\U0001F333", "truck": "\U0001F69A", "turtle": "\U0001F422", "umbrella": "\u2602",
    "whale": "\U0001F433", "zebra": "\U0001F993",
}


def render(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One glyph, cropped to what is drawn and centred on a transparent square of SIZE pixels."""
    canvas = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((STRIKE // 2, STRIKE // 2), glyph, font=font, embedded_color=True)
    box = canvas.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox()
    if box is None:
        sys.exit(f"the font draws nothing for U+{ord(glyph[0]):X}")
    drawn = canvas.crop(box)
    scale = (SIZE - 2 * MARGIN) / max(drawn.size)
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    # Premultiplied, so that the colour of transparent pixels does not bleed into the edge.
    drawn = drawn.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    square.paste(drawn, ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2))
    return square


def main() -> None:
    font = ImageFont.truetype(str(FONT), STRIKE)
    for name, glyph in GLYPHS.items():
        picture = render(glyph, font).quantize(255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        picture.save(Path(__file__).parent / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
