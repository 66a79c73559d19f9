"""Random scenes for the embedded model: the plain ones that probes show, and mixed ones that teach several functions.

A scene is a value; drawing it uses the probe generator's own primitives.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vfl.probes import draw
from vfl.probes import micro_limits as style
from vfl.probes.objects import object_sprite
from vfl.probes.solids import COLOURS, KINDS, PLURALS, solid

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Word:
    text: str
    corner: tuple[int, int]
    font: str
    colour: draw.Colour

    @property
    def box(self) -> draw.Box:
        width, height = draw.word_size(self.text, self.font, style.FONT_SIZE)
        return (*self.corner, self.corner[0] + width, self.corner[1] + height)


@dataclass(frozen=True)
class Scene:
    """Cells are numbered by rows, 0..24. `kind` and `solids` (cell, colour) describe equal solids."""

    background: draw.Colour
    objects: tuple[tuple[str, int], ...] = ()
    kind: str | None = None
    solids: tuple[tuple[int, str], ...] = ()
    word: Word | None = None


def cell_box(cell: int) -> draw.Box:
    """The pixels of a cell."""
    row, column = divmod(cell, style.GRID)
    x, y = column * style.CELL, row * style.CELL
    return (x, y, x + style.CELL, y + style.CELL)


def paint(scene: Scene) -> Image.Image:
    """The scene as an RGB image of style.SIZE pixels."""
    image = draw.blank(style.SIZE, scene.background)
    for name, cell in scene.objects:
        draw.paste(image, object_sprite(name), cell_box(cell))
    for cell, colour in scene.solids:
        assert scene.kind is not None
        draw.paste(image, solid(scene.kind, style.SOLID_SIZE, COLOURS[colour]), cell_box(cell))
    if scene.word is not None:
        word = scene.word
        draw.word(image, word.text, word.corner, word.font, style.FONT_SIZE, word.colour)
    return image


def random_word(rng: np.random.Generator) -> Word:
    """A word of the list or, as often, three random letters, where it fits."""
    if rng.random() < 0.5:
        text = str(rng.choice(style.WORDS))
    else:
        text = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=3))
    x = int(rng.integers(style.WORD_X[0], style.WORD_X[1] + 1))
    y = int(rng.integers(style.WORD_Y[0], style.WORD_Y[1] + 1))
    colour = style.WORD_COLOURS[rng.integers(len(style.WORD_COLOURS))]
    return Word(text, (x, y), str(rng.choice(style.FONTS)), colour)


def free_cells(word: Word | None) -> list[int]:
    """The cells that a word's inked box leaves free."""
    cells = list(range(style.GRID**2))
    if word is None:
        return cells
    x0, y0, x1, y1 = word.box
    columns = range(x0 // style.CELL, (x1 - 1) // style.CELL + 1)
    rows = range(y0 // style.CELL, (y1 - 1) // style.CELL + 1)
    return [cell for cell in cells if not (cell // style.GRID in rows and cell % style.GRID in columns)]


def random_scene(rng: np.random.Generator, *, objects: int = 0, solids: int = 0, word: bool = False) -> Scene:
    """A scene with so many different objects, so many equal solids, and a word or none, nothing overlapping."""
    background = style.BACKGROUNDS[rng.integers(len(style.BACKGROUNDS))]
    drawn_word = random_word(rng) if word else None
    cells = rng.permutation(free_cells(drawn_word))[: objects + solids].tolist()
    names = rng.permutation(style.OBJECTS)[:objects].tolist()
    colours = rng.choice(list(COLOURS), size=solids).tolist()
    return Scene(
        background=background,
        objects=tuple(zip(names, cells[:objects], strict=True)),
        kind=str(rng.choice(KINDS)) if solids else None,
        solids=tuple(zip(cells[objects:], colours, strict=True)),
        word=drawn_word,
    )


def plain_scene(rng: np.random.Generator, function: str) -> Scene:
    """A scene as the probes of one function show it; for recognition an object or, as often, a blank canvas."""
    if function == "recognition":
        return random_scene(rng, objects=int(rng.integers(2)))
    if function == "counting":
        return random_scene(rng, solids=int(rng.choice(style.COUNTS)))
    if function == "grounding":
        return random_scene(rng, objects=int(rng.integers(1, style.MAX_OBJECTS + 1)))
    assert function == "ocr", function
    return random_scene(rng, word=True)


def mixed_scene(rng: np.random.Generator) -> Scene:
    """Objects, solids and a word together: every function has something to ask."""
    return random_scene(
        rng,
        objects=int(rng.integers(1, style.MAX_OBJECTS + 1)),
        solids=int(rng.choice(style.COUNTS)) if rng.random() < 0.8 else 0,
        word=bool(rng.random() < 0.7),
    )


def cell_contents(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """What each cell holds, as a target for the vision tower.

    Returns:
        contents: (25,) 0 nothing, then an object class, a kind of solid or a letter.
        places: (25,) 0, or 1, 2, 3 where the cell holds the centre of a word's first, second or third letter.
    """
    contents = np.zeros(style.GRID**2, dtype=np.int64)
    places = np.zeros(style.GRID**2, dtype=np.int64)
    for name, cell in scene.objects:
        contents[cell] = 1 + style.OBJECTS.index(name)
    for cell, _ in scene.solids:
        assert scene.kind is not None
        contents[cell] = 1 + len(style.OBJECTS) + KINDS.index(scene.kind)
    if scene.word is not None:
        x0, y0, x1, y1 = scene.word.box
        pitch = draw.font(scene.word.font, style.FONT_SIZE).getlength("M")
        # The middle letter's centre is the box's, give or take a bearing.
        for index, letter in enumerate(scene.word.text):
            x = (x0 + x1) / 2 + (index - 1) * pitch
            cell = int((y0 + y1) / 2 // style.CELL) * style.GRID + int(min(max(x, 0), style.SIZE - 1) // style.CELL)
            contents[cell] = 1 + len(style.OBJECTS) + len(KINDS) + LETTERS.index(letter)
            places[cell] = index + 1
    return contents, places


# The word for each content, as the questions and answers write it; nothing has none.
CONTENT_NAMES = ("", *(f" {name}" for name in style.OBJECTS), *(f" {PLURALS[kind]}" for kind in KINDS), *LETTERS)
NUM_CONTENTS = 1 + len(style.OBJECTS) + len(KINDS) + len(LETTERS)
NUM_PLACES = 4
