"""The contact sheet shows every function of a suite, at any shape of picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vfl.probes.functions import FUNCTIONS
from vfl.probes.make import make
from vfl.probes.pair import DrawnPair, Pair, write_suite
from vfl.probes.sheet import GAP, HEADER, THUMB, contact_sheet, spread
from vfl.probes.style import Style


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return make(tmp_path_factory.mktemp("suite"), list(FUNCTIONS), pairs=3, style=Style(size=96))


def test_rows_are_shared_among_the_functions(pairs: list[Pair]) -> None:
    assert spread(pairs, 100) == pairs
    taken = spread(pairs, len(FUNCTIONS) + 1)
    assert len(taken) == len(FUNCTIONS) + 1
    assert {pair.function for pair in taken} == set(FUNCTIONS)
    assert [pair for pair in pairs if pair in taken] == taken


def test_a_row_holds_three_pictures_and_the_words(pairs: list[Pair]) -> None:
    sheet = np.asarray(contact_sheet([pair for pair in pairs if pair.function == "counting"][:2]))
    assert sheet.shape[0] == HEADER + 2 * (THUMB + GAP)
    left = GAP + 3 * (THUMB + GAP)
    for row in range(2):
        top = HEADER + row * (THUMB + GAP)
        for column in range(3):
            x = GAP + column * (THUMB + GAP)
            assert len(np.unique(sheet[top : top + THUMB, x : x + THUMB].reshape(-1, 3), axis=0)) > 1
        assert (sheet[top : top + THUMB, left:] < 100).any()


def test_long_pictures_and_missing_controls_fit(tmp_path: Path) -> None:
    images = [Image.new("RGB", (900, 20), colour) for colour in ("red", "blue")]
    drawn = DrawnPair(
        id="a",
        function="own",
        question="Which colour is it? " * 40,
        answer="red",
        source_answer="blue",
        match="text",
        image=images[0],
        source_image=images[1],
        boxes={"image": [(0, 0, 900, 20)]},
    )
    sheet = contact_sheet(write_suite(tmp_path, [drawn]))
    assert sheet.getpixel((GAP + THUMB // 2, HEADER + 2)) == (255, 0, 0)
    assert sheet.getpixel((GAP + 2 * (THUMB + GAP) + THUMB // 2, HEADER + 2)) == (255, 255, 255)
