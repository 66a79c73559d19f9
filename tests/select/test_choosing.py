"""Choosing rows from scores: budgets, policies, duplicates, and the same rows for the same seed."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fake_scores import FUNCTIONS, choice_of, row, table, write_scores

from vfl.errors import InputError
from vfl.select.choose.classes import classify
from vfl.select.choose.policies import BASELINES

BENCH = Path(__file__).parents[2] / "bench" / "selection.py"


def pool(number=400, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        if n % 10 == 9:
            made = row(n, kind="text")
        else:
            name = FUNCTIONS[int(rng.choice(4, p=[0.6, 0.2, 0.15, 0.05]))]
            drops = {name: float(rng.choice([0.25, 0.5, 0.75, 1.0]))} if rng.random() < 0.8 else {}
            made = row(
                n, drops=drops, logprobs={name: float(rng.random())}, solved=rng.random() < 0.8,
                no_image=not drops and rng.random() < 0.5,
            )  # fmt: skip
        made |= {"answer_tokens": int(rng.integers(1, 60)), "perplexity": float(rng.random() * 9)}
        made |= {"el2n": float(rng.random()), "source": f"s{n % 3}"}
        if made["kind"] == "vision":
            made["no_image_logprob_drop"] = float(rng.random())
        rows.append(made)
    return rows


@pytest.fixture(scope="module")
def rows():
    return pool()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    return write_scores(tmp_path_factory.mktemp("scores") / "s", rows)


@pytest.fixture(scope="module")
def classes(folder):
    return table(classify(folder))


def uids_of(folder, **settings):
    found, uids = choice_of(folder, **{"policy": "quota", **settings})
    assert found.rows == len(uids) == len(set(uids))
    return uids


def classes_of(uids, classes):
    return Counter(classes[uid]["class"] for uid in uids)


def test_quota_takes_the_best_of_each_class_equally(folder, classes):
    uids = uids_of(folder, budget=40)
    assert classes_of(uids, classes) == dict.fromkeys(FUNCTIONS, 10)
    for name in FUNCTIONS:
        scores = {uid: one["score"] for uid, one in classes.items() if one["class"] == name}
        taken = [scores[uid] for uid in uids if uid in scores]
        left = [score for uid, score in scores.items() if uid not in uids]
        assert min(taken) >= max(left)


def test_quota_carries_over_and_then_fills(folder, classes):
    there = classes_of(classes, classes)
    small = min(there[name] for name in FUNCTIONS)
    found = classes_of(uids_of(folder, budget=4 * small + 40), classes)
    assert min(found[name] for name in FUNCTIONS) == small
    assert set(found) == set(FUNCTIONS)
    functions = sum(there[name] for name in FUNCTIONS)
    found = classes_of(uids_of(folder, budget=functions + 20), classes)
    assert {name: found[name] for name in FUNCTIONS} == {name: there[name] for name in FUNCTIONS}
    assert (found["none"], found["text"], found["blind"]) == (10, 10, 0)


def test_shares_proportional_and_given(folder, classes):
    there = classes_of(classes, classes)
    found = classes_of(uids_of(folder, budget=60, shares="proportional"), classes)
    total = sum(there[name] for name in FUNCTIONS)
    assert all(abs(found[name] - 60 * there[name] / total) <= 1 for name in FUNCTIONS)
    found = classes_of(uids_of(folder, budget=20, shares={"counting": 3, "grounding": 1}), classes)
    assert found == {"counting": 15, "grounding": 5}
    found = classes_of(uids_of(folder, budget=400, shares={"counting": 1}, include="blind"), classes)
    assert found == there


def test_classes_can_take_part_or_stay_out(folder, classes):
    found = classes_of(uids_of(folder, budget=60, include="blind,text"), classes)
    assert (found["blind"], found["text"], found["none"]) == (10, 10, 0)
    found, uids = choice_of(folder, policy="quota", budget=399, fill=())
    assert set(classes_of(uids, classes)) == set(FUNCTIONS)
    assert "include" in found.notes[0]


def test_unsolved_rows_stay_by_default_and_can_stand_alone_or_out(folder, classes):
    def unsolved(uids):
        return sum(classes[uid]["solved"] is False for uid in uids)

    everything = unsolved(classes)
    kept = uids_of(folder, budget="95%", include="blind")
    assert unsolved(kept) > 0.8 * everything
    assert unsolved(uids_of(folder, budget="60%", unsolved="drop")) == 0
    for policy in BASELINES:
        assert unsolved(uids_of(folder, budget="60%", policy=policy, unsolved="drop")) == 0
    own = uids_of(folder, budget=50, unsolved="own")
    assert unsolved(own) == 10
    assert classes_of([uid for uid in own if classes[uid]["solved"]], classes) == dict.fromkeys(FUNCTIONS, 10)


@pytest.mark.parametrize(
    ("policy", "budget"),
    [("quota", "30e9 FLOPs"), ("quota", "23%"), ("quota", 77)]
    + [
        (name, size)
        for name in ("quota", "top", "temperature", *BASELINES)
        for size in ("700 answer tokens", "9k tokens")
    ],
)
def test_budgets_are_met_within_one_row(folder, rows, policy, budget):
    found, uids = choice_of(folder, budget=budget, policy=policy)
    by_uid = {one["uid"]: one for one in rows}
    cost = {
        "answer tokens": lambda one: one["answer_tokens"],
        "tokens": lambda one: one["text_tokens"] + one["image_tokens"],
        "rows": lambda one: 1,
    }[found.unit]
    assert found.spent == sum(cost(by_uid[uid]) for uid in uids) <= found.limit
    assert found.limit - found.spent < max(map(cost, rows))


@pytest.mark.parametrize("policy", ["quota", "top", "temperature", "target", *BASELINES])
def test_the_same_whatever_the_parts_order_and_threads(rows, folder, tmp_path, policy):
    mixed = random.Random(1).sample(rows, len(rows))
    other = write_scores(tmp_path / "mixed", mixed, parts=11)
    settings = {"policy": policy, "target": "ocr" if policy == "target" else None, "budget": "15%"}
    one = uids_of(folder, **settings, threads=1)
    assert one == uids_of(other, **settings, threads=2)
    assert one == sorted(one)  # the order of the data


def test_seeds_change_what_is_drawn_and_nothing_else(folder):
    for policy in ("random", "stratified-random", "temperature"):
        a, b = (set(uids_of(folder, policy=policy, seed=seed)) for seed in (0, 1))
        assert a != b
    for policy in ("quota", "top", "length", "el2n"):
        assert uids_of(folder, policy=policy, seed=0) == uids_of(folder, policy=policy, seed=1)


def test_ties_break_by_uid(tmp_path):
    rows = [row(n, uid=f"{name}{n}", drops={"ocr": 1.0}) for n, name in enumerate("dbcaef")] + [row(6), row(7)]
    folder = write_scores(tmp_path / "s", rows)
    assert sorted(uids_of(folder, budget=3)) == ["a3", "b1", "c2"]
    assert sorted(uids_of(folder, budget=3, policy="length")) == ["a3", "b1", "c2"]


@pytest.mark.parametrize(
    ("policy", "column"),
    [
        ("length", "answer_tokens"),
        ("perplexity", "perplexity"),
        ("el2n", "el2n"),
        ("no-image-gap", "no_image_logprob_drop"),
    ],
)
def test_measured_baselines_take_the_ends_or_the_middle(folder, rows, policy, column):
    values = {one["uid"]: one.get(column) for one in rows if one.get(column) is not None}
    ordered = sorted(values.values())
    high = [values[uid] for uid in uids_of(folder, policy=policy, budget=50)]
    low = [values[uid] for uid in uids_of(folder, policy=policy, budget=50, end="low")]
    middle = [values[uid] for uid in uids_of(folder, policy=policy, budget=50, end="middle")]
    assert sorted(high) == ordered[-50:]
    assert sorted(low) == ordered[:50]
    assert ordered[20] < min(middle) < ordered[len(ordered) // 2] < max(middle) < ordered[-20]


def test_target_takes_what_needs_the_function(folder, classes):
    found = classes_of(uids_of(folder, policy="target", target="ocr", budget=10), classes)
    assert found["ocr"] == 10
    mixed = classes_of(uids_of(folder, policy="target", target={"ocr": 1, "grounding": 1}, budget=16), classes)
    assert mixed["ocr"] + mixed["grounding"] == 16


@pytest.mark.parametrize("policy", ["top", "target"])
def test_what_fills_comes_after_all_others(folder, classes, policy):
    there = classes_of(classes, classes)
    functions = sum(there[name] for name in FUNCTIONS)
    found = classes_of(uids_of(folder, policy=policy, target="ocr", budget=functions + 7), classes)
    assert {name: found[name] for name in FUNCTIONS} == {name: there[name] for name in FUNCTIONS}
    assert found["none"] + found["text"] == 7
    assert classes_of(uids_of(folder, policy=policy, target="ocr", budget="99%", include="blind"), classes)["blind"]


def test_random_is_fair_and_stratified_keeps_the_sources(folder, rows):
    drawn = Counter()
    for seed in range(12):
        uids = uids_of(folder, policy="random", seed=seed)
        assert len(uids) == 80
        drawn.update(uids)
    assert 1.5 < np.std([drawn[one["uid"]] for one in rows]) ** 2 < 2.4  # 12 * .2 * .8 = 1.92
    sources = {one["uid"]: one["source"] for one in rows}
    found = Counter(sources[uid] for uid in uids_of(folder, policy="stratified-random"))
    assert sorted(found.values()) == [26, 27, 27]


def test_temperature_lies_between_the_best_and_a_draw(folder, classes):
    def mean(**settings):
        uids = uids_of(folder, budget=40, **settings)
        assert classes_of(uids, classes) == dict.fromkeys(FUNCTIONS, 10)
        return np.mean([classes[uid]["score"] for uid in uids])

    cold, warm, hot = (mean(policy="temperature", temperature=t) for t in (1e-3, 0.3, 1e6))
    best, drawn = mean(), mean(policy="stratified-random", by="class", shares="equal")
    assert cold == pytest.approx(best)
    assert best > warm > (hot + drawn) / 2


def test_duplicates_go_before_the_budget(tmp_path):
    def image(bits, exact):
        return f"{bits:016x}:{exact}"

    same = {"text_hash": "t", "image_hash": image(0, "aa")}
    rows = [
        row(0, **same),
        row(1, **same),
        row(2, text_hash="t", image_hash=image(0b11, "bb")),  # 2 bits away
        row(3, text_hash="t", image_hash=image(0b1111111, "cc")),  # 7 bits away, 5 from the one before
        row(4, text_hash="other", image_hash=image(0, "aa")),  # another question about the image
        row(5, text_hash="x", kind="text"),
        row(6, text_hash="x", kind="text"),
        row(7, text_hash="t", image_hash=image(0, "aa") + "," + image(1, "bb")),  # and a second image
        row(8, text_hash="t", image_hash="aa"),  # as 0, scored without the perceptual hash
    ]
    folder = write_scores(tmp_path / "s", rows)

    def left(**settings):
        return [int(uid[1:]) for uid in uids_of(folder, budget="100%", policy="random", **settings)]

    assert left() == list(range(9))
    assert left(duplicates="exact") == [0, 2, 3, 4, 5, 7]
    assert left(duplicates="near", near_bits=0) == [0, 2, 3, 4, 5, 7]
    assert left(duplicates="near", near_bits=2) == [0, 3, 4, 5, 7]
    assert left(duplicates="near", near_bits=5) == [0, 4, 5, 7]
    assert left(duplicates="near", near_bits=15) == [0, 4, 5, 7]


@pytest.mark.parametrize("bits", [0, 3, 8])
def test_diversity_equals_looking_at_all_pairs(tmp_path, bits):
    rng = random.Random(bits)
    hashes = [sum(1 << rng.randrange(64) for _ in range(2)) for _ in range(5)]
    rows = []
    for n in range(120):
        bits_of = rng.choice(hashes) ^ sum(1 << place for place in rng.sample(range(64), rng.randint(0, 4)))
        drop = {rng.choice(FUNCTIONS[:2]): rng.random() + 0.1}
        rows.append(row(n, drops=drop, image_hash=f"{bits_of:016x}:{n:x}"))
    folder = write_scores(tmp_path / "s", rows)
    classes = table(classify(folder))
    bits_of = {one["uid"]: int(one["image_hash"][:16], 16) for one in rows}
    expected = set()
    for name in FUNCTIONS[:2]:
        ranked = sorted(
            (one for one in classes.values() if one["class"] == name), key=lambda one: (-one["score"], one["uid"])
        )
        for place, one in enumerate(ranked):
            if all((bits_of[one["uid"]] ^ bits_of[other["uid"]]).bit_count() > bits for other in ranked[:place]):
                expected.add(one["uid"])
    assert set(uids_of(folder, budget="100%", diversity=bits)) == expected
    assert 2 < len(expected) < 120


def test_reclassing_needs_no_model(folder, classes):
    strict = classes_of(uids_of(folder, budget="100%", classes={"min_accuracy_drop": 0.9}), classes)
    assert strict == classes_of(uids_of(folder, budget="100%"), classes)  # everybody is chosen in the end
    a = uids_of(folder, budget=40)
    assert uids_of(folder, budget=40, classes={"measure": "logprob"}) != a


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "1 answer tokens", "policy": "length"}, "holds no row"),
        ({"policy": "target"}, "needs a target"),
        ({"policy": "target", "target": "smell"}, "smell"),
        ({"include": "smell"}, "smell"),
        ({"shares": {"smell": 1}}, "smell"),
        ({"near_bits": 40}, "near_bits is 40"),
        ({"budget": "many"}, "budget"),
        ({"polciy": "top"}, "unknown key 'polciy'"),
        ({"memory": "a lot"}, "memory"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, settings, message):
    with pytest.raises(InputError, match=message):
        choice_of(folder, **{"policy": "quota", **settings})


def test_no_row_that_may_be_chosen(tmp_path):
    folder = write_scores(tmp_path / "s", [row(n, no_image=True) for n in range(5)])
    with pytest.raises(InputError, match="include"):
        uids_of(folder)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Four times the rows within a limit that neither table, sorted, fits into."""
    peaks = []
    for number in (200_000, 800_000):
        found = tmp_path / f"{number}.json"
        flags = [
            "--rows",
            str(number),
            "--memory",
            "100MB",
            "--threads",
            "1",
            "--policies",
            "quota",
            "--json",
            str(found),
        ]
        command = [sys.executable, str(BENCH), *flags, "--folder", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (one,) = json.loads(found.read_text())["results"]
        assert one["rows"] == number // 5
        peaks.append(one["peak_bytes"])
    assert peaks[1] < 1.3 * peaks[0], peaks  # the chosen ids themselves are four times as many
