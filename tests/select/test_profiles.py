"""What rows are about: planted functions come back from clusters, however little single rows show."""

import json

import numpy as np
import pytest
from fake_scores import FUNCTIONS, STATES, row, write_scores

from vfl.errors import InputError
from vfl.select.choose.classes import ClassConfig, create_view
from vfl.select.choose.profiles import check_profiles, find_clusters
from vfl.select.shards.score_folder import database, open_scores
from vfl.select.wording import LONGEST, TERMS, answer, opening, question_terms

SAID = {name: list(range(10 * n, 10 * n + 6)) for n, name in enumerate((*FUNCTIONS, "blind"), start=1)}


def planted(number=600, seed=0, noise=1.0):
    """Rows of each function: most of them hardly move, some do, and early layers disturb everything a little."""
    rng = np.random.default_rng(seed)
    names = [*FUNCTIONS, "blind"]
    rows = []
    for n in range(number):
        name = names[int(rng.integers(len(names)))]
        moves = name != "blind" and rng.random() < 0.3
        effects = {f"js_{one}": float(rng.random() * 2e-3) for one in FUNCTIONS}
        effects["js_recognition"] += float(noise * 0.05 * rng.random() * (name != "blind"))
        if moves:
            effects[f"js_{name}"] += float(0.1 + 0.3 * rng.random())
        made = row(n, **effects, no_image_js=0.4 if moves else 0.05, no_image=name == "blind")
        if name == "blind":
            made["no_image_js"] = 0.001
        made["question_terms"] = [term for term in SAID[name] if rng.random() < 0.9] or SAID[name][:1]
        made["image_state"] = rng.standard_normal(STATES).astype(np.float16)
        rows.append(made | {"uid": f"{name}-{n}", "answer": str(rng.integers(4))})
    return rows


def profiles_of(folder, **settings):
    scores = open_scores(folder)
    with database("1GB", 1) as connection:
        create_view(connection, scores, ClassConfig())
        clusters = find_clusters(connection, scores, **settings)
        told = connection.execute("SELECT uid, profile FROM classed JOIN profiled USING (position) ORDER BY uid")
        return clusters, dict(told.fetchall())


@pytest.mark.parametrize("by", ["both", "words"])
def test_planted_functions_come_back(tmp_path, by):
    _, found = profiles_of(write_scores(tmp_path / "s", planted()), by=by)
    right = [uid.split("-")[0] == profile for uid, profile in found.items()]
    assert np.mean(right) > 0.98


def test_single_rows_do_not_show_it(tmp_path):
    """The test above would be no test if the largest effect of a row told the same."""
    right = []
    for made in planted():
        name = made["uid"].split("-")[0]
        if name != "blind":
            right.append(max(FUNCTIONS, key=lambda one: made[f"js_{one}"]) == name)
    assert np.mean(right) < 0.7


def test_the_same_seed_gives_the_same_clusters(tmp_path):
    folder = write_scores(tmp_path / "s", planted(200))
    first, again = (profiles_of(folder, seed=3) for _ in range(2))
    assert first == again


def test_a_mixed_cluster_leaves_rows_that_move_to_themselves(tmp_path):
    """One question for two functions: the words say nothing, the effects do."""
    rng = np.random.default_rng(1)
    rows = []
    for n in range(200):
        name = FUNCTIONS[1 + n % 2]
        effects = {f"js_{one}": 0.2 if one == name else 1e-4 for one in FUNCTIONS}
        rows.append(row(n, **effects, no_image_js=0.3) | {"uid": f"{name}-{n}"})
        rows[-1]["image_state"] = rng.standard_normal(STATES).astype(np.float16)
    _, found = profiles_of(write_scores(tmp_path / "s", rows), by="words")
    assert all(uid.split("-")[0] == profile for uid, profile in found.items())


def test_text_rows_alone_make_no_clusters(tmp_path):
    clusters, found = profiles_of(write_scores(tmp_path / "s", [row(n, kind="text") for n in range(9)]))
    assert (clusters, found) == ([], {})


def test_scores_without_profiles_are_refused(tmp_path):
    import pyarrow.parquet as pq

    folder = write_scores(tmp_path / "s", planted(20), parts=1)
    (part,) = (folder / "parts").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["no_image_js"]), part)
    with database("1GB", 1) as connection, pytest.raises(InputError, match=r"no_image_js.*--policy quota"):
        check_profiles(connection, open_scores(folder))


def turns(*told):
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": [{"type": "text", "text": one}]} for n, one in enumerate(told)]


def test_words_of_a_row():
    asked = turns("How  MANY cats are there?", "Three.", "And dogs in row 12?", "two")
    terms = question_terms(asked)
    assert terms == sorted(set(terms))
    assert max(terms) < TERMS
    # numbers are alike, answers are none of it, letter case and spaces neither
    assert question_terms(turns("how many cats are there?", "x", "and dogs in row 7?", "y")) == terms
    assert question_terms(turns("how many dogs are there?", "x", "and dogs in row 7?", "y")) != terms
    assert opening(asked) == "how many cats"
    assert answer(asked) == "three. | two"
    long = answer(turns("?", "a" * 200))
    assert len(long) <= LONGEST
    assert long != answer(turns("?", "a" * 201))
    json.dumps(terms)
