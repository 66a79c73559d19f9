"""Every example of docs/data-formats.md is read as the page says."""

import json
import re
from pathlib import Path

from vfl.data import Sample, detect, read
from vfl.data.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "data-formats.md"


def test_every_example_is_of_its_kind_and_read(folder):
    examples = re.findall(r"```json (\w+)\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert {kind for kind, _ in examples} == set(KINDS)
    for kind, example in examples:
        path = folder / "example.json"
        path.write_text(json.dumps([json.loads(example)]))
        (sample,) = read(path)
        assert isinstance(sample, Sample), sample
        assert detect(path).kind == kind
        if "red.png" in example:
            assert [image.open().size for image in sample.images] == [(8, 6)]
            places = [part for turn in sample.messages for part in turn["content"] if part == {"type": "image"}]
            assert len(places) == 1
