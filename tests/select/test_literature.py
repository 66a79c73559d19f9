"""Policies of the literature on made-up scores: known answers, budgets, the same rows for the same seed."""

from collections import Counter

import numpy as np
import pytest
from fake_scores import FUNCTIONS, STATES, choice_of, row, write_scores

from vfl.errors import InputError
from vfl.select.choose import states
from vfl.select.choose.coincide import cluster_weights, density, greedy_mmd, kernel, transferability
from vfl.select.choose.policies import PolicyConfig, ranking_of
from vfl.select.choose.semdedup import largest_before

POLICIES = ("coincide", "ccs", "prism", "semdedup", "vig")


def pool(number=600, seed=0):
    """Three groups that look and ask alike, one of them narrow, and rows of text."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((3, 2, STATES)) * 3
    rows = []
    for n in range(number):
        group = int(rng.choice(3, p=[0.6, 0.3, 0.1]))
        image, question = centres[group] + rng.standard_normal((2, STATES)) * (0.1 if group == 2 else 1)
        columns = {"el2n": float(rng.random() * 1.4), "loss": float(rng.random() * 3), "uid": f"g{group}-{n:04}"}
        columns |= {"answer_tokens": int(rng.integers(1, 30)), "question_state": question.astype(np.float16)}
        if rng.random() < 0.1:
            rows.append(row(n, kind="text", **columns | {"uid": f"text-{n:04}"}))
            continue
        columns |= {"image_state": image.astype(np.float16), "no_image_logprob_drop": float(rng.normal())}
        rows.append(row(n, **columns))
    return rows


@pytest.fixture(scope="module")
def rows():
    return pool()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    return write_scores(tmp_path_factory.mktemp("scores") / "s", rows)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("budget", ["20%", "900 answer tokens"])
def test_budgets_are_met_within_a_row(folder, rows, policy, budget):
    made, uids = choice_of(folder, policy=policy, budget=budget)
    dearest = max(made["answer_tokens"] for made in rows) if "tokens" in str(budget) else 1
    assert made.rows == len(uids) == len(set(uids))
    assert made.limit - dearest < made.spent <= made.limit


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_rows_whatever_the_parts_and_threads(folder, rows, tmp_path, policy):
    shuffled = [rows[n] for n in np.random.default_rng(5).permutation(len(rows))]
    other = write_scores(tmp_path / "s", shuffled, parts=7)
    expected = choice_of(folder, policy=policy, seed=3, threads=1)[1]
    assert choice_of(other, policy=policy, seed=3, threads=2)[1] == expected


@pytest.mark.parametrize("policy", ["semdedup"])
def test_repeats_stay_out_if_they_are_to(rows, tmp_path, policy):
    twice = [made | {"uid": f"{made['uid']}-again", "position": made["position"] + len(rows)} for made in rows[:100]]
    scores = write_scores(tmp_path / "s", [*rows, *twice])
    made, uids = choice_of(scores, policy=policy, budget="80%", duplicates="exact")
    assert made.duplicates == 100
    assert not any(uid.endswith("-again") for uid in uids)


def test_pieces_change_nothing(folder, monkeypatch):
    """Rows come in pieces of any size, and clusters may end anywhere in them."""
    expected = [choice_of(folder, policy=policy)[1] for policy in ("coincide", "semdedup", "prism")]
    for module in ("states", "prism"):
        monkeypatch.setattr(f"vfl.select.choose.{module}.PIECE", 37)
    assert [choice_of(folder, policy=policy)[1] for policy in ("coincide", "semdedup", "prism")] == expected


def test_prism_is_the_lowest_mean_correlation_with_the_others(folder, rows):
    shown = [made for made in rows if made["kind"] == "vision"]
    features = np.stack([made["image_state"] for made in shown]).astype(np.float64)
    correlation = np.corrcoef(features - features.mean(0))
    mean = (correlation.sum(1) - 1) / (len(shown) - 1)
    _, uids = choice_of(folder, policy="prism")
    images = [uid for uid in uids if not uid.startswith("text")]
    expected = [shown[n]["uid"] for n in np.argsort(mean)[: len(images)]]
    assert sorted(images) == sorted(expected)
    written = sum(made["kind"] == "text" for made in rows)
    assert len(uids) - len(images) == pytest.approx(0.2 * written, abs=1)


def test_ccs_cuts_the_hardest_and_evens_the_rest(tmp_path):
    rng = np.random.default_rng(0)
    # nine in ten are easy: a draw would be, too
    scores = np.concatenate([rng.random(810), 1 + rng.random(90) * 9, 20 + rng.random(100)])
    made = [row(n, el2n=float(score)) for n, score in enumerate(scores)]
    folder = write_scores(tmp_path / "s", made)
    _, uids = choice_of(folder, policy="ccs", budget=100, ccs={"beta": 0.1, "bins": 10})
    taken = scores[[int(uid[1:]) for uid in uids]]
    assert taken.max() < 20
    width = (scores[scores < 20].max() - scores.min()) / 10
    counts = Counter(((taken - scores.min()) / width).astype(int).clip(0, 9).tolist())
    there = Counter(((scores[scores < 20] - scores.min()) / width).astype(int).clip(0, 9).tolist())
    # algorithm 1: smallest bin first, each an equal part of what is left
    left, expected = 100, {}
    for place, (number, size) in enumerate(sorted(there.items(), key=lambda one: one[1])):
        expected[number] = min(size, left // (len(there) - place))
        left -= expected[number]
    assert all(abs(counts[number] - expected[number]) <= 1 for number in there)
    assert choice_of(folder, policy="ccs", budget=100, ccs={"beta": 0}, seed=1)[1] != uids


def test_ccs_of_equal_scores_is_a_draw(tmp_path):
    folder = write_scores(tmp_path / "s", [row(n) for n in range(50)])
    _, uids = choice_of(folder, policy="ccs", budget=40, ccs={"beta": 0.5})
    assert len(uids) == 25  # half are cut, and no more are there
    assert choice_of(folder, policy="ccs", budget=40, ccs={"score": "loss", "beta": 0})[0].rows == 40


def test_vig_takes_the_largest_gap_of_perplexities(folder, rows):
    gap = {
        made["uid"]: float(np.exp(np.float64(np.float32(made["loss"]) + made["no_image_logprob_drop"]))) - float(
            np.exp(np.float64(np.float32(made["loss"])))
        )
        for made in rows
        if made["kind"] == "vision"
    }  # fmt: skip
    _, uids = choice_of(folder, policy="vig", budget=60)
    assert sorted(uids) == sorted(sorted(gap, key=gap.get)[-60:])


def test_semdedup_keeps_the_rows_that_are_unlike_those_before(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for n in range(40):  # each of forty pictures with its question is there three times, all but alike
        image, question = rng.standard_normal((2, STATES))
        for copy in range(3):
            some = {"image_state": image + copy * 1e-2, "question_state": question + copy * 1e-2}
            made.append(row(3 * n + copy, **{k: v.astype(np.float16) for k, v in some.items()}, uid=f"{n:02}-{copy}"))
    folder = write_scores(tmp_path / "s", made)
    far = choice_of(folder, policy="semdedup", budget=40, semdedup={"clusters": 5})[1]
    assert len({uid.split("-")[0] for uid in far}) == 40
    near = choice_of(folder, policy="semdedup", budget=40, semdedup={"clusters": 5, "keep": "near"})[1]
    assert len({uid.split("-")[0] for uid in near}) == 40
    assert near != far


def test_semdedup_compares_with_all_rows_before_block_by_block(monkeypatch):
    vectors = states.of_length_one(np.random.default_rng(0).standard_normal((50, 6)))
    cosines = vectors @ vectors.T
    expected = [-1.0, *(cosines[n, :n].max() for n in range(1, 50))]
    assert largest_before(vectors) == pytest.approx(np.array(expected))
    monkeypatch.setattr("vfl.select.choose.semdedup.BLOCK", 7)
    assert largest_before(vectors) == pytest.approx(np.array(expected))


def mmd(vectors, chosen):
    some = vectors[chosen]
    whole, own, cross = kernel(vectors, vectors).mean(), kernel(some, some).mean(), kernel(vectors, some).mean()
    return whole + own - 2 * cross


def test_greedy_mmd_takes_the_row_that_leaves_the_least():
    vectors = states.of_length_one(np.random.default_rng(0).standard_normal((30, 4)))
    chosen = []
    for _ in range(12):
        rest = [n for n in range(30) if n not in chosen]
        chosen.append(min(rest, key=lambda n: mmd(vectors, [*chosen, n])))
    assert greedy_mmd(vectors, 12) == chosen
    drawn = [mmd(vectors, np.random.default_rng(n).choice(30, 12, replace=False)) for n in range(20)]
    assert mmd(vectors, chosen) < min(drawn)


def test_density_and_transferability_have_known_values():
    right = np.eye(3)[[0, 1]]  # |p - q|^2 = 2
    assert density(right) == pytest.approx(np.exp(-1))
    assert density(right[[0, 0, 0]]) == pytest.approx(1)
    assert density(right[:1]) == 1
    centroids = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]])
    assert transferability(centroids, 1) == pytest.approx([1, 1, 0.8, 0.8])
    assert transferability(centroids, 9) == pytest.approx([1.6 / 3, 1.6 / 3, 0.8 / 3, 2 / 3])
    assert transferability(centroids[:1], 4) == [1]


def test_coincide_weighs_clusters_by_the_exponent():
    weights = cluster_weights(np.array([0.9, 0.9, 0.5]), np.array([0.5, 1.0, 0.5]), 0.1)
    assert weights == pytest.approx(np.exp(np.array([18, 9, 10]) - 18.0))
    assert (cluster_weights(np.array([0.9, -0.9]), np.array([0.1, 0.1]), 1e-3) > 0).all()


def test_coincide_gives_equal_parts_where_nothing_counts(folder):
    """Of endless temperature all clusters are worth the same: groups of one cluster each, of any size, get as much."""
    settings = {"clusters": 4, "tau": 1e9}
    taken = Counter(uid.split("-")[0] for uid in choice_of(folder, policy="coincide", coincide=settings)[1])
    assert set(taken) == {"g0", "g1", "g2", "text"}
    assert max(taken.values()) < 1.5 * min(taken.values())


@pytest.mark.parametrize("policy", ["coincide", "semdedup", "prism"])
def test_rows_of_text_alone_or_of_one_kind_are_chosen_too(tmp_path, policy):
    written = write_scores(tmp_path / "text", [row(n, kind="text") for n in range(30)])
    assert choice_of(written, policy=policy, budget=10)[0].rows == 10
    alike = write_scores(tmp_path / "alike", [row(n) for n in range(30)])
    assert choice_of(alike, policy=policy, budget=10)[0].rows == 10


@pytest.mark.parametrize("policy", ["coincide", "ccs", "prism", "semdedup"])
@pytest.mark.parametrize("setting", [{"shares": "proportional"}, {"include": ("blind",)}, {"unsolved": "own"}])
def test_settings_of_other_policies_are_refused(policy, setting):
    (name,) = setting
    with pytest.raises(InputError, match=rf"{name} is a setting.*policy is {policy}.*--policy quota"):
        ranking_of(PolicyConfig(policy=policy, **setting), FUNCTIONS)


def test_unsolved_rows_can_be_left_out(tmp_path):
    folder = write_scores(tmp_path / "s", [row(n, solved=n % 2 == 0) for n in range(40)])
    for policy in ("prism", "ccs"):
        _, uids = choice_of(folder, policy=policy, budget=10, unsolved="drop")
        assert all(int(uid[1:]) % 2 == 0 for uid in uids)


def test_scores_without_states_are_refused_in_one_sentence(tmp_path):
    import pyarrow.parquet as pq

    folder = write_scores(tmp_path / "s", [row(n) for n in range(9)])
    for file in (folder / "parts").glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["image_state"]), file)
    with pytest.raises(InputError, match=r"no column image_state.*Score again"):
        choice_of(folder, policy="prism")
