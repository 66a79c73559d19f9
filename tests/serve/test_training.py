"""Training runs side by side: what differs, what both logged, what each gained."""

import pytest

from vfl.errors import InputError
from vfl.serve.pages import training_page
from vfl.serve.training import compare_training


def test_settings_that_differ_curves_and_accuracies(root):
    compared = compare_training(root, ["a", "deep/b"])
    assert compared.settings == [("trainer.learning_rate", ["0.001", "0.01"])]
    assert [chart.title for chart in compared.charts] == ["loss", "ocr", "counting"]
    for chart in compared.charts:
        assert [line.name for line in chart.lines] == ["a", "deep/b"]
        assert len({line.ink.colour for line in chart.lines}) == 2
    assert [len(line.dots) for line in compared.charts[0].lines] == [3, 2]
    groups = dict(compared.accuracies)
    assert groups["ocr"][0] == ("20.0\u00a0% (10.0–30.0)", "80.0\u00a0% (70.0–90.0)", "+60.0")
    assert groups["counting"][1][0] == "–"  # not asked before
    page = training_page(compared)
    for shown in ("trainer.learning_rate", "0.001", "deep/b", "+60.0"):
        assert shown in page
    assert "method" not in page  # the same in both


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["a"], "1 run was chosen"),
        (["a", "a"], "1 run was chosen"),
        (["a", "maps/one"], "maps/one is no training run"),
        (["a", "../outside"], "There is no '../outside'"),
    ],
)
def test_what_can_not_be_compared_is_an_error(root, places, message):
    with pytest.raises(InputError, match=message):
        compare_training(root, places)


def test_settings_are_data_and_never_objects(root):
    (root / "a" / "settings.yaml").write_text("model: !!python/object/apply:os.system ['touch owned']\n")
    with pytest.raises(InputError, match="is not YAML"):
        compare_training(root, ["a", "deep/b"])
