"""Scores, their map and their subset are of pictures of one size, or it is said."""

import json

import pytest
import tiny
from fake_scores import row, write_scores

import vfl
from vfl.errors import InputError
from vfl.select.report.page import write_selection_report
from vfl.select.score.run import score
from vfl.select.settings import ScoreConfig
from vfl.select.shards.same_scores import check_subset, size_notes

SIZE = {"min_pixels": 256, "max_pixels": 9216}


def test_scoring_is_not_resumed_on_pictures_of_another_size(loaded, tmp_path):
    tiny.picture(seed=1).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nhow many"}, {"from": "gpt", "value": "two"}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}]))
    config = ScoreConfig(data=tmp_path / "data.json", layers={"counting": [1]}, out=tmp_path / "scores")
    score(config, vlm=loaded("qwen2_5_vl"), progress=False)
    smaller = loaded("qwen2_5_vl", max_pixels=1024)
    with pytest.raises(InputError, match=r"of another run \(max_pixels: 9216 then, 1024 now\). Use the same settings"):
        score(config, vlm=smaller, progress=False)
    for name in ("plan.json", "manifest.json"):
        (config.out / name).unlink()
    with pytest.raises(InputError, match=r"part-000000.parquet is of another run; move it away"):
        score(config, vlm=smaller, progress=False)


def test_a_map_of_pictures_of_another_size_is_a_note():
    def notes(model, located):
        return list(size_notes({"model": {"id": "m", **model}, "map": located}))

    smaller = {**SIZE, "max_pixels": 1024}
    (note,) = notes(SIZE, {"sha256": "ab", **smaller})
    assert "pictures of min_pixels 256, max_pixels 9216, their map was located on pictures of min_pixels 256" in note
    assert notes(SIZE, SIZE) == notes(SIZE, {"sha256": "ab"}) == notes(SIZE, None) == notes({}, smaller) == []


def test_a_subset_of_scores_of_another_size_is_refused(tmp_path):
    """Its rows have the same uids at the same places."""
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    data = tmp_path / "data.json"
    data.write_text(json.dumps([{"id": f"u{n:05}", "conversations": turns} for n in range(4)]))
    settings = {"data": [str(data)]}
    own, other = (
        write_scores(
            tmp_path / str(high),
            [row(n) for n in range(4)],
            model={"id": str(high), "parameters": 10, "min_pixels": 256, "max_pixels": high},
            map={"sha256": "ab", **SIZE},
            settings=settings,
        )
        for high in (9216, 1024)
    )
    subset = vfl.filter(other, budget="50%", policy="random", out=tmp_path / "subset").folder
    manifest = json.loads((subset / "manifest.json").read_text())
    assert "max_pixels 1024, their map was located on pictures of" in manifest["notes"][0]
    moved = json.loads((other / "manifest.json").read_text())
    moved["model"]["id"] = "elsewhere"
    check_subset(moved, manifest, other)
    with pytest.raises(InputError, match=r"other scores than .*\(model.max_pixels: 1024 then, 9216 now\). Name the"):
        write_selection_report(own, tmp_path / "report.html", subset=subset)
    assert not (tmp_path / "report.html").exists()
