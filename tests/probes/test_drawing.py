"""The drawing primitives and the bundled pictures."""

import numpy as np
import pytest

from vfl.errors import InputError
from vfl.probes import draw, objects, solids

WHITE = (255, 255, 255)


def inked_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """The box of everything that is not white."""
    rows, columns = np.nonzero((image != 255).any(-1))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_sixty_objects_with_their_licence_in_under_a_megabyte() -> None:
    assert len(objects.object_names()) >= 60
    assert (objects.FOLDER / "LICENSE.txt").read_text(encoding="utf-8").count("SIL Open Font License") >= 1
    assert sum(path.stat().st_size for path in objects.FOLDER.iterdir() if path.is_file()) < 1_000_000
    for name in objects.object_names():
        sprite = objects.object_sprite(name)
        assert sprite.size == (96, 96)
        assert sprite.getchannel("A").getextrema() == (0, 255), name


@pytest.mark.parametrize("name", ["../secret", "cat.png", "CAT", ""])
def test_only_bundled_names_are_opened(name: str) -> None:
    with pytest.raises(InputError, match="choose from"):
        objects.object_sprite(name)


@pytest.mark.parametrize("font", draw.FONTS)
@pytest.mark.parametrize("text", ["MAP", "jog"])
def test_the_box_of_a_word_holds_its_ink(font: str, text: str) -> None:
    image = draw.blank((200, 80))
    box = draw.word(image, text, (20, 30), font, 32)
    ink = inked_box(np.array(image))
    assert box[:2] == (20, 30)
    assert ink[1] == box[1]
    assert ink[3] == box[3]
    # Sideways the box also holds the space that the font keeps beside a letter.
    assert box[0] - 1 <= ink[0] <= box[0] + 8
    assert box[2] - 8 <= ink[2] <= box[2] + 1


def test_an_unknown_font_is_refused() -> None:
    with pytest.raises(InputError, match="DejaVuSans-Bold"):
        draw.font("Comic", 12)


def test_a_sprite_stays_in_its_box_and_transparency_shows_the_canvas() -> None:
    image = draw.blank(100, WHITE)
    draw.paste(image, objects.object_sprite("tree"), (10, 20, 58, 68))
    x0, y0, x1, y1 = inked_box(np.array(image))
    assert (x0, y0) >= (10, 20)
    assert x1 <= 58
    assert y1 <= 68
    assert image.getpixel((11, 66)) == WHITE


@pytest.mark.parametrize("kind", solids.KINDS)
@pytest.mark.parametrize("size", [16, 64])
def test_solids_are_lit_from_the_left_and_stand_on_a_shadow(kind: str, size: int) -> None:
    sprite = solids.solid(kind, size, (206, 52, 52))
    assert sprite.size == (size, size)
    pixels = np.array(sprite).astype(float)
    half, middle = size // 2, slice(int(0.5 * size), int(0.6 * size) + 1)
    red, alpha = pixels[..., 0], pixels[..., 3]
    left, right = red[middle, int(0.25 * size) : half - 1], red[middle, half + 1 : int(0.7 * size)]
    assert left.mean() > right.mean() + 20
    shadow = pixels[int(0.87 * size), int(0.7 * size)]
    assert 0 < shadow[3] < 255
    assert alpha[0, 0] == alpha[0, -1] == alpha[-1, 0] == 0
    assert np.array_equal(np.array(solids.solid.__wrapped__(kind, size, (206, 52, 52))), np.array(sprite))


def test_an_unknown_solid_is_refused() -> None:
    with pytest.raises(InputError, match="cylinder"):
        solids.solid("cone", 16, (0, 0, 0))
