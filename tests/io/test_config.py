"""Settings mean the same wherever they are written: in a file, as a flag, with --set, in Python."""

from pathlib import Path

import pytest

from vfl.errors import InputError
from vfl.evaluate.config import EvaluateConfig
from vfl.io.config import known_keys, merged, read_config, recipe_and_overrides, validated
from vfl.locate.config import LocateConfig
from vfl.measure.config import MeasureConfig
from vfl.measure.paper import Paper
from vfl.select.settings import ScoreConfig
from vfl.select.subset.write import FilterConfig
from vfl.train.layers.choice import LayerChoice
from vfl.train.recipe import Recipe

KINDS = [LocateConfig, EvaluateConfig, MeasureConfig, ScoreConfig, FilterConfig, Recipe]
NEEDED = {
    LocateConfig: {"out": "o"},
    EvaluateConfig: {"out": "o"},
    MeasureConfig: {"out": "o"},
    ScoreConfig: {"out": "o"},
    FilterConfig: {"out": "o", "scores": "s", "budget": 5},
    Recipe: {"out": "o", "data": {"train": "d.json"}, "layers": "full"},
}


def test_set_is_over_flags_and_flags_are_over_the_file(tmp_path):
    file = tmp_path / "locate.yaml"
    file.write_text("pairs: 1\nseed: 1\nmode: single\nchoice: {alpha: 0.01}\n")
    flags = {"pairs": 2, "seed": 2, "size": None}
    assert merged(file, flags, ["seed=3", "layers.counting=5-6"]) == {
        "pairs": 2,
        "seed": 3,
        "mode": "single",
        "choice": {"alpha": 0.01},
        "layers": {"counting": "5-6"},
    }


@pytest.mark.parametrize("kind", [LocateConfig, EvaluateConfig, MeasureConfig, ScoreConfig])
@pytest.mark.parametrize("written", ["counting,ocr", "counting, ocr", ["counting", "ocr"]])
def test_names_are_written_either_way(kind, written):
    assert validated(kind, NEEDED[kind] | {"functions": written}, source="x").functions == ("counting", "ocr")


@pytest.mark.parametrize("kind", [LocateConfig, EvaluateConfig, MeasureConfig, ScoreConfig])
def test_no_name_at_all_is_an_error(kind):
    with pytest.raises(InputError, match="'functions' is"):
        validated(kind, NEEDED[kind] | {"functions": []}, source="x")


def test_names_inside_a_recipe_are_written_either_way():
    values = NEEDED[Recipe] | {
        "layers": {"functions": "counting,ocr", "map": "m.json"},
        "evaluation": {"functions": "ocr", "metrics": "swap,drop"},
        "also_adapt": "vision,projector",
    }
    recipe = validated(Recipe, values, source="x")
    assert recipe.layers.functions == ("counting", "ocr")
    assert (recipe.evaluation.functions, recipe.evaluation.metrics) == (("ocr",), ("swap", "drop"))
    assert recipe.also_adapt == ("vision", "projector")


@pytest.mark.parametrize("kind", [LocateConfig, ScoreConfig])
@pytest.mark.parametrize("written", ["5-6", [5, 6], ["5", 6]])
def test_layers_per_function_are_written_either_way(kind, written):
    config = validated(kind, NEEDED[kind] | {"layers": {"counting": written}}, source="x")
    assert config.layers == {"counting": [5, 6]}


@pytest.mark.parametrize(("written", "meant"), [("on", "on"), ("off", "off"), ("true", "on"), ("no", "off")])
def test_words_for_on_and_off_are_those_of_yaml(tmp_path, written, meant):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"out: o\ndata: {{train: d.json}}\nlayers: full\ncheckpointing: {written}\n")
    assert read_config(Recipe, file, {}).checkpointing == meant
    assert read_config(Recipe, file, {}, ["checkpointing=auto"]).checkpointing == "auto"


@pytest.mark.parametrize(
    ("kind", "override", "meant"),
    [
        (LocateConfig, "moed=single", "unknown key 'moed', did you mean mode"),
        (LocateConfig, "choice.alpah=1", "unknown key 'choice.alpah', did you mean alpha"),
        (EvaluateConfig, "data.mine.colum=x", "unknown key 'data.mine.colum', did you mean column"),
        (MeasureConfig, "judge.modle=x", "unknown key 'judge.modle', did you mean model"),
        (ScoreConfig, "ray.worker=1", "unknown key 'ray.worker', did you mean workers"),
        (FilterConfig, "classes.rigth=1", "unknown key 'classes.rigth', did you mean right"),
        (Recipe, "data.on_bad_rows=skip", "unknown key 'data.on_bad_rows', did you mean on_bad_row"),
        (Recipe, "evaluation.data.mine.pth=x", "unknown key 'evaluation.data.mine.pth', did you mean path"),
        (Recipe, "layers.exapnd=1", "unknown key 'layers.exapnd', did you mean expand"),
        (Recipe, "match=parameters", "'match' was a spelling of vfl 0.1; write match_rank: true"),
        (EvaluateConfig, "batch=8", "'batch' was a spelling of vfl 0.1; write batch_size: 16"),
        (Recipe, "evaluation.batch=8", "'evaluation.batch' was a spelling of vfl 0.1; write batch_size"),
        (LocateConfig, "attention=eager", "'attention' was a spelling of vfl 0.1; write attn_implementation: sdpa"),
        (ScoreConfig, "strict=true", "'strict' was a spelling of vfl 0.1; write on_bad_row: error"),
    ],
)
def test_an_unknown_key_says_which_is_meant(kind, override, meant, tmp_path):
    needed = NEEDED[kind] | ({"layers": {"list": [1]}} if override.startswith("layers.") else {})
    with pytest.raises(InputError, match=meant):
        read_config(kind, None, needed, [override])


def test_keys_are_known_inside_mappings_unions_and_lists():
    assert "column" in known_keys(EvaluateConfig, ["data", "mine"])
    assert {"question", "objects", "probes"} <= set(known_keys(Paper, ["sets", "pope", "questions"]))
    assert "value" in known_keys(Paper, ["published", 0])
    assert "list" in known_keys(LayerChoice)
    assert "layers" not in known_keys(LayerChoice)


@pytest.mark.parametrize("kind", KINDS)
def test_one_default_for_what_all_have(kind):
    config = validated(kind, NEEDED[kind], source="x")
    assert getattr(config, "model", "embedded") == "embedded"
    assert getattr(config, "on_bad_row", "error") == "error"
    if kind is Recipe:
        assert config.data.on_bad_row == "error"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_can_be_read_again(kind, tmp_path):
    from vfl.io.run_folder import SETTINGS, write_settings

    config = validated(kind, NEEDED[kind], source="x")
    write_settings(tmp_path, config.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert read_config(kind, tmp_path / SETTINGS, {}) == config


def test_a_recipe_is_named_once():
    assert recipe_and_overrides("a.yaml", ["x=1"], None, ["y=2"]) == (Path("a.yaml"), ["x=1", "y=2"])
    assert recipe_and_overrides("x=1", ["z=1"], Path("a.yaml"), ["y=2"]) == (Path("a.yaml"), ["x=1", "z=1", "y=2"])
    assert recipe_and_overrides(None, [], Path("a.yaml"), []) == (Path("a.yaml"), [])
    with pytest.raises(InputError, match="Two recipes"):
        recipe_and_overrides("b.yaml", [], Path("a.yaml"), [])
    with pytest.raises(InputError, match="No recipe"):
        recipe_and_overrides(None, [], None, [])
