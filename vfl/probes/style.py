"""What generated probes look like: sizes, places, colours, fonts and words.

Two styles ship. `Style()` is for real vision-language models: large pictures, all bundled objects, varied fonts.
`MICRO_STYLE` keeps inside what the embedded model was trained on (micro_limits.py) and draws only the functions that
it answers. Lengths given as fractions are fractions of the image's side.
"""

import string
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vfl.errors import InputError
from vfl.io.files import open_image
from vfl.probes import draw, objects, solids
from vfl.probes import micro_limits as micro
from vfl.probes.draw import Colour

PICTURES = (".png", ".webp", ".jpg", ".jpeg")
LARGEST_PICTURE = 512  # a user's picture is kept at this side at most


@lru_cache(maxsize=1)
def common_words() -> tuple[str, ...]:
    """Common English words of 3 to 8 letters, lower case."""
    return tuple((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())


@dataclass(frozen=True, kw_only=True)
class Style:
    """Where every value is drawn from. The defaults are for real models.

    `objects` empty means all there are; `object_folder` holds a user's own pictures, one file a class, instead of the
    bundled ones. Objects and solids stand in cells of a grid, one a cell, so they never overlap; a grid and a size that
    leave no room in the cell put them exactly on it. `tight_boxes` says whether an object's box is the picture's inked
    part (as people annotate) or the whole square.
    """

    name: str = "standard"
    size: int = 448
    functions: tuple[str, ...] = ()  # empty: all
    objects: tuple[str, ...] = ()
    object_folder: Path | None = None
    object_grid: int = 3
    object_sides: tuple[float, float] = (0.22, 0.31)
    max_objects: int = 4
    tight_boxes: bool = True
    solid_grid: int = 4
    solid_sides: tuple[float, float] = (0.17, 0.24)
    solid_colours: tuple[Colour, ...] = tuple(solids.COLOURS.values())
    counts: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    words: tuple[str, ...] = ()  # empty: the bundled list
    word_cases: tuple[str, ...] = ("upper", "lower", "title")
    fonts: tuple[str, ...] = draw.FONTS
    font_sizes: tuple[float, float] = (0.08, 0.18)
    word_x: tuple[int, int] | None = None  # pixels of the inked box's left upper corner; None: wherever it fits
    word_y: tuple[int, int] | None = None
    word_colours: tuple[Colour, ...] = ((0, 0, 0), (32, 44, 120), (124, 28, 28), (20, 92, 48), (92, 36, 112))
    backgrounds: tuple[Colour, ...] = (
        *((255, 255, 255), (244, 240, 228), (228, 236, 244), (232, 244, 230), (246, 232, 236), (234, 234, 234)),
    )

    def __post_init__(self) -> None:
        if self.size < self.object_grid * 16:
            raise InputError(f"size {self.size} is too small for probes; use at least {self.object_grid * 16} pixels")
        for name in ("backgrounds", "fonts", "word_colours"):
            if len(getattr(self, name)) < 2:
                raise InputError(f"{name} needs at least two values, one for the target and one for the control image")
        if not 2 <= self.max_objects < self.object_grid**2:
            raise InputError(f"max_objects is {self.max_objects}; expected 2 to {self.object_grid**2 - 1}")
        unknown = sorted(set(self.objects) - set(self.available_objects()))
        if unknown:
            listed = ", ".join(self.available_objects())
            raise InputError(f"there are no pictures of {', '.join(unknown)}; choose from: {listed}")

    def resized(self, size: int) -> "Style":
        """The same style at another image size.

        Raises:
            InputError: for the embedded model's style, whose size is the one it was trained at.
        """
        if self.name == "micro" and size != self.size:
            raise InputError(
                f"style micro draws what the embedded model was trained on, {self.size} pixels, got {size}: leave the"
                " size out, or use style standard"
            )
        return replace(self, size=size)

    def available_objects(self) -> tuple[str, ...]:
        """All classes that have a picture."""
        return objects.object_names() if self.object_folder is None else tuple(user_pictures(self.object_folder))

    def object_names(self) -> tuple[str, ...]:
        """The classes that probes are drawn from."""
        return self.objects or self.available_objects()

    def sprite(self, name: str) -> Image.Image:
        """The picture of one class, RGBA; its inked part alone where boxes are tight. Shared: do not draw on it."""
        return _sprite(name, self.object_folder, self.tight_boxes)

    def vocabulary(self) -> tuple[str, ...]:
        """The words of the OCR probes."""
        return self.words or common_words()

    def pixels(self, fraction: float) -> int:
        """A fraction of the image's side in whole pixels, at least 1."""
        return max(1, round(fraction * self.size))


MICRO_STYLE = Style(
    name="micro",
    size=micro.SIZE,
    functions=("recognition", "counting", "grounding", "ocr"),
    objects=micro.OBJECTS,
    object_grid=micro.GRID,
    object_sides=(micro.CELL / micro.SIZE, micro.CELL / micro.SIZE),
    max_objects=micro.MAX_OBJECTS,
    tight_boxes=False,
    solid_grid=micro.GRID,
    solid_sides=(micro.SOLID_SIZE / micro.SIZE, micro.SOLID_SIZE / micro.SIZE),
    counts=micro.COUNTS,
    words=micro.WORDS,
    word_cases=("upper",),
    fonts=micro.FONTS,
    font_sizes=(micro.FONT_SIZE / micro.SIZE, micro.FONT_SIZE / micro.SIZE),
    word_x=micro.WORD_X,
    word_y=micro.WORD_Y,
    word_colours=micro.WORD_COLOURS,
    backgrounds=micro.BACKGROUNDS,
)
STYLES: dict[str, Style] = {"standard": Style(), "micro": MICRO_STYLE}


def user_pictures(folder: Path) -> dict[str, Path]:
    """A user's pictures by class name: the file's name without its ending, with "_" read as a space.

    Raises:
        InputError: the folder is absent, holds fewer than two pictures, or two of one class.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one with a picture a class, named as the class (fire_truck.png)")
    pictures: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURES or path.name.startswith("."):
            continue
        name = path.stem.replace("_", " ").strip()
        if name in pictures:
            raise InputError(
                f"{folder} holds two pictures of {name!r}: {pictures[name].name} and {path.name}; remove one"
            )
        pictures[name] = path
    if len(pictures) < 2:
        raise InputError(
            f"{folder} holds {len(pictures)} pictures; expected at least 2, named as their class "
            f"({', '.join(PICTURES)})"
        )
    return pictures


@lru_cache(maxsize=512)
def _sprite(name: str, folder: Path | None, tight: bool) -> Image.Image:
    if folder is None:
        picture = objects.object_sprite(name)
    else:
        picture = open_image(user_pictures(folder)[name]).convert("RGBA")
        picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    if not tight:
        return picture
    # faint anti-aliased pixels are not seen as part of the object
    inked = picture.getchannel("A").point([0] * 32 + [255] * 224).getbbox()
    if inked is None:
        raise InputError(f"the picture of {name!r} is empty: every pixel is transparent")
    return picture.crop(inked)


def in_case(word: str, case: str) -> str:
    """`word` in "upper", "lower" or "title" case."""
    return {"upper": word.upper(), "lower": word.lower(), "title": string.capwords(word)}[case]
