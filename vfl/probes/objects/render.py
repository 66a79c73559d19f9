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
    "airplane": "\u2708",
    "anchor": "\u2693",
    "apple": "\U0001f34e",
    "backpack": "\U0001f392",
    "banana": "\U0001f34c",
    "basketball": "\U0001f3c0",
    "bear": "\U0001f43b",
    "bed": "\U0001f6cf",
    "bell": "\U0001f514",
    "bicycle": "\U0001f6b2",
    "bird": "\U0001f426",
    "boat": "\u26f5",
    "book": "\U0001f4d5",
    "bus": "\U0001f68c",
    "butterfly": "\U0001f98b",
    "cake": "\U0001f370",
    "camera": "\U0001f4f7",
    "car": "\U0001f697",
    "carrot": "\U0001f955",
    "cat": "\U0001f408",
    "chair": "\U0001fa91",
    "chicken": "\U0001f414",
    "clock": "\u23f0",
    "cow": "\U0001f404",
    "crab": "\U0001f980",
    "cup": "\u2615",
    "dog": "\U0001f415",
    "donut": "\U0001f369",
    "door": "\U0001f6aa",
    "duck": "\U0001f986",
    "elephant": "\U0001f418",
    "fish": "\U0001f41f",
    "flower": "\U0001f33b",
    "frog": "\U0001f438",
    "guitar": "\U0001f3b8",
    "hammer": "\U0001f528",
    "hat": "\U0001f3a9",
    "horse": "\U0001f40e",
    "house": "\U0001f3e0",
    "key": "\U0001f511",
    "laptop": "\U0001f4bb",
    "lemon": "\U0001f34b",
    "lion": "\U0001f981",
    "motorcycle": "\U0001f3cd",
    "mushroom": "\U0001f344",
    "orange": "\U0001f34a",
    "owl": "\U0001f989",
    "pencil": "\u270f",
    "pig": "\U0001f416",
    "pizza": "\U0001f355",
    "rabbit": "\U0001f407",
    "scissors": "\u2702",
    "sheep": "\U0001f411",
    "shoe": "\U0001f45f",
    "strawberry": "\U0001f353",
    "telephone": "\u260e",
    "television": "\U0001f4fa",
    "tiger": "\U0001f405",
    "tractor": "\U0001f69c",
    "train": "\U0001f682",
    "tree": "\U0001f333",
    "truck": "\U0001f69a",
    "turtle": "\U0001f422",
    "umbrella": "\u2602",
    "whale": "\U0001f433",
    "zebra": "\U0001f993",
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
