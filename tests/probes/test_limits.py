"""The length of an answer follows what is expected."""

import pytest
import tiny
from own_suite import write_own_suite

import vfl
from vfl.evaluate.items import items_of_probes
from vfl.metrics.edited_prompts import question_on
from vfl.probes.asking import MAX_NEW_TOKENS, answer_limit, is_cut, token_limit


@pytest.mark.parametrize(("kind", "answer"), [("yesno", "no"), ("number", "12"), ("text", "a b"), ("exact", "!")])
def test_a_short_answer_has_the_limit_of_its_kind(kind: str, answer: str) -> None:
    assert answer_limit(kind, [answer, "c"]) == MAX_NEW_TOKENS.get(kind, MAX_NEW_TOKENS["text"])


@pytest.mark.parametrize("length", [16, 17, 40, 300])
def test_the_limit_holds_the_longest_expected_answer_and_its_end(length: int) -> None:
    limit = answer_limit("text", ["a", "word " * length], str.split)
    assert length < limit <= 2 * (length + 8)
    assert not is_cut(range(length), limit)


def test_a_script_without_spaces_is_counted_by_tokens() -> None:
    assert answer_limit("text", ["猫" * 30], list) > 30
    assert answer_limit("text", ["c" * 30], list) == MAX_NEW_TOKENS["text"]


def test_everything_that_asks_a_pair_has_the_same_limit(loaded, tmp_path) -> None:
    vlm = loaded("qwen2_5_vl")
    short = write_own_suite(vlm, tmp_path / "probes", 1)
    (pair, *_) = vfl.probes.pair.read_suite(short)
    long = pair.model_copy(update={"answer": "one two three " * 20})
    long._folder, long._size = pair.folder, pair.size
    limits = []
    for asked in (pair, long, long.limited(5)):
        (item,) = items_of_probes(vlm, [asked])
        question = question_on(vlm, asked, "image", tiny.picture())
        assert item.max_new_tokens == question.limit == token_limit(vlm, asked)
        limits.append(question.limit)
    assert limits[0] == MAX_NEW_TOKENS[pair.match]
    assert limits[1] > len(vlm.answer_ids(long.answer))
    assert limits[2] == 5
    assert items_of_probes(vlm, [long], max_new_tokens=7)[0].max_new_tokens == 7
