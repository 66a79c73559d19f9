"""The policy `balanced`: shares add up, junk stays out, no answer is lost, the same rows for the same seed."""

from collections import Counter

import numpy as np
import pytest
from fake_scores import FUNCTIONS, STATES, choice_of, row, write_scores

from vfl.errors import InputError
from vfl.select.choose.balance import BalanceConfig, shares

WEIGHT = {"recognition": 0.7, "counting": 0.07, "grounding": 0.13, "ocr": 0.1}


def pool(number=1000, seed=0):
    """Skewed over functions and over answers, a tenth blind, some with wrong answers."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        name = str(rng.choice([*WEIGHT], p=[*WEIGHT.values()])) if rng.random() < 0.9 else "blind"
        moves = name != "blind" and rng.random() < 0.4
        effects = {f"js_{one}": 0.3 if moves and one == name else 1e-3 for one in FUNCTIONS}
        place = 10 * ([*FUNCTIONS, "blind"].index(name) + 1)
        wrong = name == "ocr" and rng.random() < 0.05
        said = str(rng.choice(["1", "2", "3"], p=[0.8, 0.17, 0.03])) if name != "ocr" else f"word {n}"
        rows.append(
            row(
                n,
                **effects,
                no_image_js=0.3 if moves else 0.02 if name != "blind" else 1e-4,
                solved=name != "counting",
                no_image=name == "blind",
            )
            | {"uid": f"{name}-{n}{'-wrong' * wrong}", "answer": said, "question_terms": [place, place + 1]}
            | {"image_state": rng.standard_normal(STATES).astype(np.float16), "source": name}
            | {"loss": 9.0 if wrong else float(0.2 + 0.1 * rng.random())}
        )
    return rows


@pytest.fixture(scope="module")
def rows():
    return pool()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    return write_scores(tmp_path_factory.mktemp("scores") / "s", rows)


def functions_of(uids):
    return Counter(uid.split("-")[0] for uid in uids)


@pytest.mark.parametrize("budget", ["5%", "20%", 333, "300 answer tokens"])
def test_the_budget_is_filled(folder, budget):
    made, uids = choice_of(folder, budget=budget)
    assert made.rows == len(uids) == len(set(uids))
    each = 4 if "tokens" in str(budget) else 1
    assert made.limit - each < made.spent <= made.limit


def test_shares_add_up_and_lie_between_natural_and_equal():
    counts = {"a": (900, 0.5), "b": (90, 0.5), "c": (10, 0.5)}
    natural = shares(counts, BalanceConfig(level=0))
    equal = shares(counts, BalanceConfig(level=1))
    between = shares(counts, BalanceConfig(level=0.5))
    for found in (natural, equal, between):
        assert sum(found.values()) == pytest.approx(1)
    assert natural == pytest.approx({"a": 0.9, "b": 0.09, "c": 0.01})
    assert equal == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert natural["a"] > between["a"] > equal["a"]
    assert natural["c"] < between["c"] < equal["c"]


def test_what_is_unsolved_gets_more_and_what_is_solved_not_nothing():
    found = shares({"a": (100, 0.0), "b": (100, 1.0)}, BalanceConfig(least=0.2))
    assert found["b"] == pytest.approx(5 * found["a"])
    assert shares({"a": (30, 0.0), "b": (10, 0.0)}, BalanceConfig(least=0)) == {"a": 0.75, "b": 0.25}


def test_a_class_of_two_functions_has_the_share_of_two():
    """As much as two classes of half its rows, between natural and equal shares alike."""
    apart = {"a": (30, 1.0), "b": (20, 1.0), "c": (20, 1.0)}
    for level in (0.0, 0.6, 1.0):
        config = BalanceConfig(level=level)
        wanted = shares(apart, config)
        found = shares({"a": (30, 1.0), "b and c": (40, 1.0)}, config, lambda name: 2 if name == "b and c" else 1)
        assert found["a"] == pytest.approx(wanted["a"])
        assert found["b and c"] == pytest.approx(wanted["b"] + wanted["c"])


def test_rare_functions_gain_and_unsolved_ones_most(folder, rows):
    there, taken = functions_of(row["uid"] for row in rows), functions_of(choice_of(folder)[1])
    kept = {name: taken[name] / there[name] for name in FUNCTIONS}
    assert kept["counting"] > kept["grounding"] > kept["recognition"]
    assert functions_of(choice_of(folder, balance={"level": 0, "least": 1})[1])["recognition"] > taken["recognition"]


def test_no_answer_is_lost(folder, rows):
    said = {row["uid"]: row["answer"] for row in rows}
    for name in ("recognition", "counting", "grounding"):
        there = Counter(said[row["uid"]] for row in rows if row["uid"].startswith(name))
        often = {one for one, count in there.items() if count >= 5}
        taken = Counter(said[uid] for uid in choice_of(folder)[1] if uid.startswith(name))
        assert often <= set(taken)
    there = Counter(said[row["uid"]] for row in rows if row["uid"].startswith("recognition"))
    taken = Counter(said[uid] for uid in choice_of(folder)[1] if uid.startswith("recognition"))
    assert taken["3"] / taken["1"] > 2 * there["3"] / there["1"]


def test_junk_stays_out_unless_it_is_wanted(folder, rows):
    made, uids = choice_of(folder)
    assert not functions_of(uids)["blind"]
    assert not any(uid.endswith("-wrong") for uid in uids)
    assert made.balance.left_out["blind"] == functions_of(row["uid"] for row in rows)["blind"]
    assert made.balance.left_out["suspects"] >= sum(row["uid"].endswith("-wrong") for row in rows)
    assert functions_of(choice_of(folder, balance={"drop": ("repeats",)})[1])["blind"]


def test_suspects_come_when_nothing_else_is_left(folder, rows):
    _, uids = choice_of(folder, budget=1000)
    assert any(uid.endswith("-wrong") for uid in uids)
    assert len(uids) == sum(not row["uid"].startswith("blind") for row in rows)


def test_repeats_stay_out(rows, tmp_path):
    twice = [row | {"uid": f"{row['uid']}-again", "position": row["position"] + len(rows)} for row in rows[:200]]
    _, uids = choice_of(write_scores(tmp_path / "s", [*rows, *twice]), budget="50%")
    assert not any(uid.endswith("-again") for uid in uids)


def test_the_same_seed_the_same_rows(folder):
    first, again, other = (choice_of(folder, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_text_rows_keep_their_part(rows, tmp_path):
    written = [row(2000 + n, kind="text") for n in range(250)]
    _, uids = choice_of(write_scores(tmp_path / "s", [*rows, *written]))
    text = sum(uid.startswith("u0") for uid in uids)
    # a function that is used up leaves its share to the others, text among them
    assert 1 <= text / len(uids) / (250 / 1250) < 1.5


def test_text_rows_alone(tmp_path):
    made, uids = choice_of(write_scores(tmp_path / "s", [row(n, kind="text") for n in range(50)]))
    assert made.rows == len(uids) == 10


@pytest.mark.parametrize("setting", [{"shares": "proportional"}, {"include": ("blind",)}, {"unsolved": "own"}])
def test_settings_of_other_policies_are_refused(folder, setting):
    (name,) = setting
    with pytest.raises(InputError, match=rf"{name} is a setting.*--policy quota"):
        choice_of(folder, **setting)
