"""Perceptual hashes are made by the selection that compares images, of the rows that it compares, and once."""

import json

import pytest
from fake_scores import row, write_scores
from tiny.pictures import picture

from vfl.data.reading import open_data
from vfl.errors import InputError
from vfl.select.choose import perceptual
from vfl.select.choose.filtering import ChoiceConfig, choose, chosen_uids
from vfl.select.hashes import exact
from vfl.select.hashes import perceptual as hash_of
from vfl.select.shards.score_folder import database, open_scores


@pytest.fixture
def scored(tmp_path):
    """Scores of six rows, and their data: 0, 1 and 2 show the same in three sizes, 3 something else."""
    whole = picture(0, (256, 192))
    images = [whole, whole.resize((128, 96)), whole.resize((64, 48)), picture(7, (256, 192)), whole, whole]
    texts = ["a", "a", "a", "a", "b", "c"]
    lines, rows = [], []
    for n, (image, text) in enumerate(zip(images, texts, strict=True)):
        image.save(tmp_path / f"{n}.png")
        turns = [{"role": "user", "content": f"<image>{text}"}, {"role": "assistant", "content": "!"}]
        lines.append(json.dumps({"id": f"r{n}", "messages": turns, "images": [f"{n}.png"]}))
        rows.append(row(n, text_hash=text, image_hash=exact(image)))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return write_scores(tmp_path / "scores", rows), tmp_path / "data.jsonl"


def left(scores, data, **settings):
    config = ChoiceConfig(**{"budget": "100%", "policy": "random", **settings})
    with database() as connection:
        choose(connection, open_scores(scores), config, data and open_data(data))
        return [int(uid[1:]) for uid in chosen_uids(connection)]


def test_images_are_looked_at_once_and_only_where_rows_are_compared(scored, monkeypatch):
    scores, data = scored
    seen = []
    monkeypatch.setattr(perceptual, "perceptual", lambda image: seen.append(image.size) or hash_of(image))
    assert left(scores, None) == left(scores, None, duplicates="exact") == list(range(6))
    with pytest.raises(InputError, match="4 rows have no perceptual hash"):
        left(scores, None, duplicates="near")
    assert not seen
    assert left(scores, data, duplicates="near", near_bits=6) == [0, 3, 4, 5]
    assert sorted(seen) == [(64, 48), (128, 96), (256, 192), (256, 192)]
    seen.clear()
    assert left(scores, None, duplicates="near", near_bits=6) == [0, 3, 4, 5]  # they were kept
    left(scores, data, diversity=6, policy="stratified-random")  # rows of a class or source
    assert len(seen) == 2
    assert left(scores, None, duplicates="near", near_bits=6) == [0, 3, 4, 5]
    assert not list(scores.glob(".*"))
    (scores / perceptual.FILE).write_bytes(b"damaged")
    assert left(scores, data, duplicates="near", near_bits=6) == [0, 3, 4, 5]


def test_an_image_that_went_away_is_named(scored):
    scores, data = scored
    (data.parent / "2.png").unlink()
    with pytest.raises(InputError, match=r"data.jsonl line 3 was scored and can't be used now.*2\.png"):
        left(scores, data, duplicates="near")
    assert not (scores / perceptual.FILE).exists()


def test_where_scores_may_not_be_written_the_choice_is_the_same(scored, monkeypatch, caplog):
    scores, data = scored
    monkeypatch.setattr(perceptual, "FILE", "manifest.json/hashes")
    assert left(scores, data, duplicates="near", near_bits=6) == [0, 3, 4, 5]
    assert "hashed again next time" in caplog.text
