"""Precision and recall of recovered layers."""

from fake_records import Fake, records, sharp

from vfl.functionmap import FunctionMap, ModelId
from vfl.locate.layer_rule import ChoiceConfig
from vfl.locate.map_entries import build_entries
from vfl.locate.recovery import Score, score, total


def test_scores_count_layers() -> None:
    table = records({"a": Fake(sharp(2)), "b": Fake(sharp(4)), "c": Fake(lambda a, b: 0.0), "d": Fake(sharp(1))}, 6)
    fmap = FunctionMap(
        model=ModelId(id="m", family="f", num_layers=6), functions=build_entries(table, 6, ChoiceConfig(bootstrap=0))
    )
    scores = score(fmap, {"a": [2, 3], "b": [4], "c": [5], "unknown": [0]})
    assert scores == {"a": Score(1, 1, 2), "b": Score(1, 1, 1), "c": Score(0, 0, 1)}
    assert (scores["a"].precision, scores["a"].recall) == (1.0, 0.5)
    assert (scores["c"].precision, scores["c"].recall) == (0.0, 0.0)
    assert total(scores) == Score(2, 2, 4)
    assert total({}) == Score(0, 0, 0)
