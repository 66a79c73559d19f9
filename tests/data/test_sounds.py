"""Rows with sounds in place of images, in the forms that people write them."""

import json

import pytest

from vfl.data import BadRow, Sample, read

TURNS = [{"from": "human", "value": "<audio>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]
ENTRIES = [
    {"role": "user", "content": [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "A dog."},
]


def rows_of(folder, *rows, **how):
    (folder / "a.wav").write_bytes(b"RIFF")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read(path, **({"medium": "audio"} | how)))


@pytest.mark.parametrize(
    ("row", "how"),
    [
        ({"audio": "a.wav", "question": "What is it?", "answer": "A dog."}, {}),
        ({"audio": {"path": "a.wav", "bytes": None}, "question": "What is it?", "answer": "A dog."}, {}),
        ({"audios": ["a.wav"], "conversations": TURNS}, {}),
        ({"audios": ["a.wav"], "query": "<audio>What is it?", "response": "A dog."}, {}),
        ({"messages": ENTRIES}, {}),
        ({"clip": "a.wav", "question": "What is it?", "answer": "A dog."}, {"image_column": "clip"}),
        ({"audio": "a.wav", "question": "What is it?", "answer": "A dog."}, {"image_column": "audio"}),
    ],
)
def test_a_sound_is_the_same_however_a_row_has_it(tmp_path, row, how):
    (sample,) = rows_of(tmp_path, row, **how)
    assert isinstance(sample, Sample), sample
    assert [image.path for image in sample.images] == [tmp_path / "a.wav"]
    place, text = sample.messages[0]["content"]
    assert (place, text) == ({"type": "image"}, {"type": "text", "text": "What is it?"})
    assert sample.images[0].content() == b"RIFF"


def test_pictures_are_not_shown_to_a_model_that_hears_nor_sounds_to_one_that_sees(tmp_path):
    question = {"question": "What is it?", "answer": "A dog."}
    (seen,) = rows_of(tmp_path, {"image": "a.png", "audio": "a.wav", **question})
    assert isinstance(seen, BadRow)
    assert "only audio or audios are read" in seen.reason
    (heard,) = rows_of(tmp_path, {"audio": "a.wav", **question}, medium="image")
    assert isinstance(heard, BadRow)
    assert "only images are read" in heard.reason
