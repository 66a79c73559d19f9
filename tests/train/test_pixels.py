"""An adapter keeps the size of the pictures it was trained on: evaluated and trained further with it."""

import json

import pytest
import trained

from vfl.models.pixel_limits import saved_limits
from vfl.train.run import train

pytestmark = pytest.mark.long


def test_an_adapter_keeps_the_size_of_its_pictures(tiny_folder, tmp_path, evaluated):
    model = tiny_folder("qwen2_5_vl")
    rows = trained.write_data(tmp_path / "rows", ["image"] * 4)
    recipe = trained.settings(model, rows, tmp_path / "out", max_pixels=1024)
    outcome = train(recipe | {"trainer": recipe["trainer"] | {"max_steps": 1}}, progress=False)
    assert saved_limits(outcome.adapter) == (256, 1024)
    assert (outcome.flight.model.min_pixels, outcome.flight.model.max_pixels) == (256, 1024)
    assert "| pixels of a picture | 256 to 1024" in (outcome.adapter / "README.md").read_text()

    rows = trained.write_data(tmp_path / "asked", ["image"])
    base = evaluated("base", model, rows)
    assert base["model"]["max_pixels"] == 9216
    assert "pictures" not in " ".join(base["notes"])
    own = evaluated("own", model, rows, "--adapter", outcome.adapter, "--baseline", tmp_path / "base")
    assert own["model"]["max_pixels"] == 1024
    assert "The pictures of Qwen2.5-VL had other sizes" in own["notes"][-1]
    other = evaluated("other", model, rows, "--adapter", outcome.adapter, "--max-pixels", 4096)
    assert other["model"]["max_pixels"] == 4096
    assert "was trained on pictures of min_pixels 256, max_pixels 1024" in other["notes"][0]

    further = recipe | {"out": str(tmp_path / "further"), "adapter": str(outcome.adapter), "max_pixels": None}
    further = {key: value for key, value in further.items() if key != "lora"}
    assert train(further, check=True, progress=False).flight.model.max_pixels == 1024


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """evaluation.json of `vfl evaluate` with these arguments, run here."""
    import sys

    from vfl.commands import main

    def call(name, model, rows, *arguments):
        line = ["vfl", "evaluate", model, "--data", rows, "--out", tmp_path / name, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in line])
        with pytest.raises(SystemExit) as left:
            main.run()
        assert not left.value.code
        return json.loads((tmp_path / name / "evaluation.json").read_text())

    return call
