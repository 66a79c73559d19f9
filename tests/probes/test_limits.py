"""The length of an answer follows what is expected."""

from types import SimpleNamespace

from vfl.probes.asking import MAX_NEW_TOKENS, token_limit


def test_the_limit_holds_the_longest_expected_answer() -> None:
    vlm = SimpleNamespace(answer_ids=lambda answer: answer.split())
    pair = SimpleNamespace(match="text")
    assert token_limit(vlm, pair, ["a b", "c"]) == MAX_NEW_TOKENS["text"]
    assert token_limit(vlm, pair, ["a", "word " * 40]) > 40
