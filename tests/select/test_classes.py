"""Classes from stored scores: what a row loses decides, by raw thresholds first and standardised drops then."""

import itertools
import random

import numpy as np
import pytest
from fake_scores import FUNCTIONS, row, table, write_scores

from vfl.errors import InputError
from vfl.select.choose.classes import ClassConfig, classify
from vfl.select.shards.score_folder import open_scores


@pytest.fixture
def classes(tmp_path):
    numbers = itertools.count()

    def call(rows, functions=FUNCTIONS, **settings):
        folder = write_scores(tmp_path / str(next(numbers)), rows, functions=functions)
        return table(classify(folder, ClassConfig(**settings)))

    return call


def background(first):
    """Rows that give each function the same spread, so that a raw drop stands for itself."""
    return [row(first + n, drops=dict.fromkeys(FUNCTIONS, n % 2)) for n in range(20)]


def test_the_classes_of_the_definition(classes):
    rows = [
        row(0, drops={"counting": 0.5, "ocr": 0.25}),
        row(1, kind="text"),
        row(2, no_image=True),
        row(3),
        row(4, solved=False, no_image=True, logprobs={"grounding": 2.0}),
        row(5, solved=False),
        row(6, no_image=True, drops={"counting": 1.0}),
    ]
    found = classes(rows + background(7))
    assert [found[f"u{n:05}"]["class"] for n in range(7)] == [
        "counting", "text", "blind", "none", "grounding", "none", "blind"
    ]  # fmt: skip
    assert [found[f"u{n:05}"]["solved"] for n in range(6)] == [True, None, True, True, False, False]


def test_a_row_wrong_before_is_never_blind(classes):
    rng = random.Random(0)
    rows = [
        row(n, solved=rng.random() < 0.5, no_image=rng.random() < 0.5, drops={"ocr": rng.random()}) for n in range(200)
    ]
    found = classes(rows)
    for one in rows:
        assert (found[one["uid"]]["class"] == "blind") == (one["exact"] and one["no_image_exact"])


def test_thresholds_are_of_raw_drops_and_come_first(classes):
    # ocr's drops are tiny and alike: standardised they stand out, raw they do not count
    rows = [row(0, drops={"ocr": 0.04, "counting": 0.06})]
    rows += [row(n, drops={"ocr": 0.0, "counting": (n % 2) * 0.9}) for n in range(1, 30)]
    found = classes(rows)["u00000"]
    assert found["class"] == "counting"
    assert found["margin"] < 0  # ocr would have won
    assert classes(rows, min_accuracy_drop={"ocr": 0.01, "counting": 0.01})["u00000"]["class"] == "ocr"
    assert classes(rows, min_accuracy_drop=0.07)["u00000"]["class"] == "none"


def test_equals_a_plain_computation(classes):
    rng = np.random.default_rng(1)
    rows = []
    for n in range(400):
        drops = {name: float(np.float32(rng.choice([0, 0.25, 0.5]) * rng.random())) for name in FUNCTIONS}
        logs = {name: float(np.float32(rng.normal())) for name in FUNCTIONS}
        rows.append(row(n, drops=drops, logprobs=logs, solved=rng.random() < 0.7))
    found = classes(rows)
    spread = {
        kind: {name: (np.mean(values), np.std(values)) for name in FUNCTIONS
               if (values := [one[f"{kind}_{name}"] for one in rows])}
        for kind in ("drop", "logprob_drop")
    }  # fmt: skip
    for one in rows:
        kind = "drop" if one["exact"] else "logprob_drop"
        z = {name: (one[f"{kind}_{name}"] - spread[kind][name][0]) / spread[kind][name][1] for name in FUNCTIONS}
        able = {name: z[name] for name in FUNCTIONS if one[f"{kind}_{name}"] >= 0.05}
        got = found[one["uid"]]
        if not able:
            assert got["class"] == "none"
            assert got["score"] == pytest.approx(max(z.values()), abs=1e-4)
            continue
        best = max(able, key=able.__getitem__)
        assert got["class"] == best
        assert got["score"] == pytest.approx(z[best], abs=1e-4)
        assert got["margin"] == pytest.approx(z[best] - max(z[name] for name in FUNCTIONS if name != best), abs=1e-4)


def test_classes_do_not_depend_on_the_order_or_the_parts(tmp_path):
    rng = np.random.default_rng(2)
    rows = [row(n, drops={name: float(rng.random()) for name in FUNCTIONS}) for n in range(300)]
    mixed = random.Random(3).sample(rows, len(rows))
    a, b = (
        table(classify(write_scores(tmp_path / name, some, parts=parts)))
        for name, some, parts in (("a", rows, 1), ("b", mixed, 7))
    )
    assert a == b


def test_right_can_mean_most_of_the_answer(classes):
    long = row(0, accuracy=0.95, exact=False, no_image_accuracy=0.92, drops={"ocr": 0.5})
    assert classes([long, *background(1)])["u00000"]["class"] != "blind"
    assert classes([long, *background(1)], right=0.9)["u00000"]["class"] == "blind"


def test_what_is_no_number_counts_as_no_drop(classes):
    found = classes([row(0, drops={"ocr": float("nan")}), row(1, drops={"ocr": 0.5}), row(2)])
    assert [found[f"u{n:05}"]["class"] for n in range(3)] == ["none", "ocr", "none"]


def test_one_function_with_a_name_that_needs_quotes(classes):
    name = 'it\'s "odd" %'
    found = classes([row(0, functions=(name,), drops={name: 1.0}), row(1, functions=(name,))], functions=(name,))
    assert found["u00000"]["class"] == name
    assert found["u00000"]["margin"] is None


@pytest.mark.parametrize("name", ["text", "blind", "none", "unsolved"])
def test_a_function_must_not_be_called_like_a_class(tmp_path, name):
    folder = write_scores(tmp_path / "s", [row(0, functions=(name,))], functions=(name,))
    with pytest.raises(InputError, match="rename"):
        open_scores(folder)


def test_unknown_functions_and_unfinished_scores_are_refused(tmp_path):
    folder = write_scores(tmp_path / "s", [row(0)])
    with pytest.raises(InputError, match="smell"):
        classify(folder, ClassConfig(min_prob_drop={"smell": 0.1}))
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="resumes"):
        classify(folder)
    with pytest.raises(InputError, match="holds no scores"):
        open_scores(tmp_path)
