"""Shaded solids in the manner of CLEVR: cube, ball and cylinder, lit from the upper left, with a soft shadow.

    sprite = solid("cube", 60, (200, 60, 60))        # RGBA, 60 x 60, ready for draw.paste

They are computed per pixel on a finer grid and reduced, so that they look the same at any size.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from vfl.errors import InputError
from vfl.probes.draw import Colour

KINDS = ("cube", "ball", "cylinder")
PLURALS = {"cube": "cubes", "ball": "balls", "cylinder": "cylinders"}
COLOURS: dict[str, Colour] = {
    "red": (206, 52, 52), "blue": (46, 92, 214), "green": (36, 152, 72),
    "purple": (136, 56, 190), "cyan": (36, 166, 176), "brown": (136, 82, 38),
}  # fmt: skip
AMBIENT, DIFFUSE = 0.45, 0.65
FINER = 4


def ball(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage, brightness and highlight of a ball over the unit square (u to the right, v down)."""
    x, y = (u - 0.47) / 0.42, (v - 0.47) / 0.42
    inside = x * x + y * y <= 1.0
    z = np.sqrt(np.clip(1.0 - x * x - y * y, 0.0, 1.0))
    light = np.clip((-0.5 * x - 0.6 * y + 0.62 * z), 0.0, 1.0)
    return inside, AMBIENT + DIFFUSE * light, np.clip(light, 0, 1) ** 24


def cylinder(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A standing cylinder: a top ellipse, evenly lit, over a body that darkens to the right."""
    x = (u - 0.47) / 0.32
    bulge = 0.13 * np.sqrt(np.clip(1.0 - x * x, 0.0, 1.0))
    inside = (np.abs(x) <= 1.0) & (v >= 0.19 - bulge) & (v <= 0.76 + bulge)
    top = inside & (v <= 0.19 + bulge)
    z = np.sqrt(np.clip(1.0 - x * x, 0.0, 1.0))
    light = np.clip(-0.6 * x + 0.62 * z, 0.0, 1.0)
    return inside, np.where(top, 1.08, AMBIENT + DIFFUSE * light * 0.9), np.where(top, 0.0, light**24 * 0.6)


def cube(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cube seen from above its front edge: a bright top, a middle left face, a dark right face."""
    x, half = u - 0.47, 0.40
    slope = 0.5 * np.abs(x)
    inside = (np.abs(x) <= half) & (v >= 0.05 + slope) & (v <= 0.89 - slope)
    top = inside & (v <= 0.45 - slope)
    side = np.where(x < 0, 0.82, 0.50)
    return inside, np.where(top, 1.10, side), np.zeros_like(u)


SHAPES = {"cube": cube, "ball": ball, "cylinder": cylinder}


def shadow(side: int, pixels: int) -> Image.Image:
    """A soft dark ellipse on the ground, to the lower right, as an alpha mask of `pixels` side."""
    axis = (np.arange(pixels) + 0.5) / pixels
    u, v = np.meshgrid(axis, axis)
    mask = (((u - 0.55) / 0.36) ** 2 + ((v - 0.83) / 0.12) ** 2 <= 1.0).astype(np.uint8) * 110
    return Image.fromarray(mask).filter(ImageFilter.GaussianBlur(0.035 * pixels))


@lru_cache(maxsize=512)
def solid(kind: str, size: int, colour: Colour) -> Image.Image:
    """One shaded solid with its shadow on a transparent square of `size` pixels. Shared: do not draw on it.

    Raises:
        InputError: the kind is not in KINDS.
    """
    if kind not in SHAPES:
        raise InputError(f"no solid is called {kind!r}; choose from: {', '.join(KINDS)}")
    pixels = size * FINER
    axis = (np.arange(pixels) + 0.5) / pixels
    u, v = np.meshgrid(axis, axis)
    inside, brightness, highlight = SHAPES[kind](u, v)
    rgb = np.array(colour)[None, None] * brightness[..., None] + 255.0 * 0.8 * highlight[..., None]
    body = np.dstack([np.clip(rgb, 0, 255), 255.0 * inside]).astype(np.uint8)
    body[~inside.astype(bool)] = 0
    picture = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
    picture.putalpha(shadow(size, pixels))
    picture.alpha_composite(Image.fromarray(body))
    return picture.convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA")
