"""Groups: every image is asked about and lends to the others, and a group's pairs are minimal pairs like any other."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vfl.errors import InputError
from vfl.probes.functions import GROUPS, PAPER_FUNCTIONS
from vfl.probes.make import draw_group, drawn_pairs, make
from vfl.probes.match import read
from vfl.probes.pair import read_suite
from vfl.probes.style import MICRO_STYLE, Style

SMALL = Style(size=224)
CASES = [*((name, SMALL) for name in GROUPS), *((name, MICRO_STYLE) for name in PAPER_FUNCTIONS)]
each = pytest.mark.parametrize(("function", "style"), CASES, ids=lambda value: getattr(value, "name", value))


@each
@pytest.mark.parametrize("size", [2, 3])
def test_of_n_images_all_ordered_pairs_are_drawn(function, style, size):
    for number in range(4):
        pairs = draw_group(function, number, 0, style, size)
        assert {pair.group for pair in pairs} == {f"{function}-{number:04d}"}
        assert len({pair.question for pair in pairs}) == 1
        images = {id(image) for pair in pairs for image in (pair.image, pair.source_image)}
        controls = {id(pair.control_image) for pair in pairs}
        assert len(images) == size
        if function == "recognition":  # an object in several places against one empty canvas
            assert len(pairs) == size - 1
            assert len({id(pair.source_image) for pair in pairs}) == len(controls) == 1
            continue
        assert len(pairs) == size * (size - 1)
        assert len(controls) == size
        assert Counter(pair.answer for pair in pairs) == Counter(pair.source_answer for pair in pairs)
        assert set(Counter((pair.answer, pair.source_answer) for pair in pairs).values()) == {1}
        for pair in pairs:
            assert read(pair.match, pair.answer) != read(pair.match, pair.source_answer)


@each
def test_images_of_a_group_differ_where_the_answer_does(function, style):
    """A swap between any two changes the part that is asked for, and little else: no more than a pair's own two do."""
    size = 3

    def apart(pair):
        first, second = (np.asarray(image.convert("RGB")).astype(int) for image in (pair.image, pair.source_image))
        return float((first != second).any(-1).mean())

    alone = [apart(pair) for pair in drawn_pairs([function], 24, 0, style)]
    grouped = [apart(pair) for number in range(8) for pair in draw_group(function, number, 0, style, size)]
    assert 0 < max(grouped) <= 1.5 * max(alone)


def test_a_suite_of_groups_writes_each_image_once_and_reads_back(tmp_path: Path):
    written = make(tmp_path, ["counting", "ocr"], pairs=14, seed=2, style=SMALL, group=3)
    assert [pair.line() for pair in read_suite(tmp_path)] == [pair.line() for pair in written]
    assert [pair.group for pair in written[:7]] == ["counting-0000"] * 6 + ["counting-0001"]
    assert len(list((tmp_path / "images").iterdir())) == len(
        {name for pair in written for name in (pair.image, pair.source_image, pair.control_image)}
    )
    assert len({pair.image for pair in written[:6]} | {pair.source_image for pair in written[:6]}) == 3
    more = make(tmp_path / "more", ["counting"], pairs=20, seed=2, style=SMALL, group=3)
    assert [pair.line() for pair in more[:14]] == [pair.line() for pair in written[:14]], "the first are the same"


@pytest.mark.parametrize(
    ("function", "size", "message"),
    [
        ("counting", 7, r"counting draws groups of 2 to 6 images \(counts 1, 2, 3, 4, 5, 6\), got 7"),
        ("grounding", 9, r"grounding draws groups of 2 to 8 images \(places of a 3 x 3 grid\), got 9"),
        ("recognition", 10, r"recognition draws groups of 2 to 9"),
        ("colour", 4, r"colour draws groups of 2 to 3"),
        ("relation", 5, r"relation draws groups of 2 to 4 images \(sides left, right"),
        ("chart", 1, r"chart draws groups of 2 to 5"),
        ("ocr", 100000, r"ocr draws groups of 2 to \d+ images \(words of each length\)"),
    ],
)
def test_more_images_than_answers_are_refused_before_anything_is_written(tmp_path, function, size, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "suite", [function], group=size)
    assert not (tmp_path / "suite").exists()
