"""A data set's question has one image, and counts once in every metric."""

import json

import pytest
from tiny.pictures import picture

from vfl.data import read
from vfl.loading.load import load
from vfl.measure.question_pairs import question
from vfl.metrics.measure import measure_named


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    lines = []
    for number, answer in enumerate(("yes", "no", "yes")):
        picture(number).save(folder / f"{number}.png")
        turns = [{"role": "user", "content": f"<image>Is it {number}?"}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"id": f"q{number}", "images": [f"{number}.png"], "messages": turns}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    how = {"name": "data", "column": None, "match": "auto", "choices": ()}
    return [question(row, folder, **how) for row in read(folder / "rows.jsonl")]


@pytest.mark.parametrize("name", ["drop", "mask", "late_entry", "knockout", "head_masking", "functional", "lens"])
def test_every_row_counts_once(name, asked, tiny_folder):
    vlm = load(tiny_folder("qwen2_5_vl"))
    options = {"head_masking": {"head_masking": {"ks": [1], "draws": 1, "mode": "mean"}}}.get(name, {})
    result = measure_named(vlm, [name], asked, options=options)[name]
    counted = [part["n"] for part in [*result["scalars"].values(), *result["curves"].values()] if part["n"] is not None]
    assert counted
    flat = [n for count in counted for n in (count if isinstance(count, list) else [count])]
    assert max(flat) == 3, counted


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_row_has_no_other_to_predict_it_from(asked, tiny_folder):
    result = measure_named(load(tiny_folder("qwen2_5_vl")), ["functional"], asked[:1])["functional"]
    assert (result["curves"], result["redundant"]) == ({}, {"data": []})
    assert "one image" in result["undecided"]["data"]
