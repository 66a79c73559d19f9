"""A map survives the file, refuses what is no map, and belongs to one model."""

import json
from pathlib import Path
from typing import Any

import pytest

from vfl.errors import InputError
from vfl.functionmap import FunctionEntry, FunctionMap, ModelId, other_pixels

L = 6


def entry(layers: list[int], peak: int | None, **more: Any) -> FunctionEntry:
    rate = [0.25 if k in layers else 0.0 for k in range(L)]
    values: dict[str, Any] = {
        "layers": layers, "peak": peak, "distributed": False, "pairs": 40, "kept": 30, "accuracy": 0.9,
        "changed": rate, "followed_source": rate, "ci_low": [0.0] * L, "ci_high": [1.0] * L,
        "control": None, "logprob_effect": [0.5] * L,
    }  # fmt: skip
    return FunctionEntry(**(values | more))


@pytest.fixture
def fmap() -> FunctionMap:
    return FunctionMap(
        model=ModelId(id="owner/model", weights_sha256="a" * 64, family="qwen2_5_vl", num_layers=L),
        functions={"ocr": entry([4, 5], 4), "counting": entry([1, 2], 2), "chart": entry([], None)},
        settings={"seed": 0, "note": '[\n 1,\n "two" ]', "widths": [2, 3]},
        probes_sha256="b" * 64,
        versions={"vfl": "0.1.0"},
    )


def test_saved_and_loaded_is_the_same(fmap: FunctionMap, tmp_path: Path) -> None:
    fmap.save(tmp_path / "map.json")
    assert FunctionMap.load(tmp_path / "map.json") == fmap
    assert FunctionMap.load(tmp_path) == fmap
    assert [path.name for path in tmp_path.iterdir()] == ["map.json"]


def test_the_file_has_the_documented_keys(fmap: FunctionMap) -> None:
    content = json.loads(fmap.to_json())
    assert list(content) == ["schema", "model", "functions", "settings", "probes_sha256", "versions"]
    assert content["schema"] == 1
    assert content["model"] == {
        "id": "owner/model", "weights_sha256": "a" * 64, "family": "qwen2_5_vl", "num_layers": L
    }  # fmt: skip
    documented = (Path(__file__).parents[1] / "docs" / "map-format.md").read_text(encoding="utf-8")
    for key in [*content, *content["model"], *content["functions"]["ocr"]]:
        assert f"`{key}`" in documented, key


def test_lists_of_numbers_stand_on_one_line(fmap: FunctionMap) -> None:
    assert '"changed": [0.0, 0.25, 0.25, 0.0, 0.0, 0.0]' in fmap.to_json()


def test_an_interrupted_save_keeps_the_old_map(
    fmap: FunctionMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.json"
    fmap.save(path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fmap.save(path)
    monkeypatch.undo()
    assert FunctionMap.load(path) == fmap
    assert [path.name for path in tmp_path.iterdir()] == ["map.json"]


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return content


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: "{", "is not JSON"),
        (lambda content: "[1]", "is no function map"),
        (lambda content: json.dumps({"a": 1}), "is no function map"),
        (lambda content: json.dumps(content | {"schema": 2}), "has schema 2, this version of vfl reads 1"),
        (
            lambda content: json.dumps(without(content, "functions", "ocr", "layers")),
            r"functions\.ocr\.layers: Field re",
        ),
        (lambda content: json.dumps(without(content, "model")), "model: Field required"),
        (lambda content: json.dumps(content | {"extra": 1}), "extra: Extra inputs"),
        (lambda content: json.dumps(content | {"functions": {}}), "functions: "),
        (lambda content: json.dumps(content).replace("[1, 2]", "[2, 1]"), "layers must ascend"),
        (lambda content: json.dumps(content).replace("[4, 5]", "[4, 9]"), r"layer 9 lies outside 0\.\.5"),
        (
            lambda content: json.dumps(content).replace('"num_layers": 6', '"num_layers": 7'),
            "ocr has 6 layers, the model",
        ),
        (lambda content: json.dumps(content).replace("0.25", "NaN"), "finite number"),
        (lambda content: json.dumps(content).replace("0.25", "1.5"), "less than or equal to 1"),
    ],
)
def test_what_is_no_map_is_refused(fmap: FunctionMap, tmp_path: Path, spoil: Any, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(spoil(json.loads(fmap.to_json())))
    with pytest.raises(InputError, match=message) as error:
        FunctionMap.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No function map at"):
        FunctionMap.load(tmp_path)
    (tmp_path / "map.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not JSON"):
        FunctionMap.load(tmp_path)


def test_the_map_knows_its_model(fmap: FunctionMap) -> None:
    assert fmap.check_model(id="/copied/elsewhere", num_layers=L, weights_sha256="a" * 64) is fmap
    with pytest.raises(
        InputError, match=r"owner/model \(6 layers.*the model at hand is owner/tuned \(6 layers, weights c"
    ):
        fmap.check_model(id="owner/tuned", num_layers=L, weights_sha256="c" * 64)
    with pytest.raises(InputError, match="Depths differ"):
        fmap.check_model(id="owner/tuned", num_layers=8, allow_other_model=True)


def test_revisions_tell_models_apart_where_hashes_are_unknown(fmap: FunctionMap) -> None:
    hub = fmap.model_copy(update={"model": ModelId(id="owner/model", revision="r1", family="x", num_layers=L)})
    assert hub.check_model(id="owner/model", num_layers=L, revision="r1") is hub
    assert hub.check_model(id="owner/model", num_layers=L) is hub
    with pytest.raises(InputError, match=r"revision r1.*revision r2"):
        hub.check_model(id="owner/model", num_layers=L, revision="r2")


def test_a_derivative_is_accepted_when_allowed_and_recorded(fmap: FunctionMap, tmp_path: Path) -> None:
    tuned = fmap.check_model(id="owner/tuned", num_layers=L, weights_sha256="c" * 64, allow_other_model=True)
    assert (tuned.model.id, tuned.derived_from) == ("owner/tuned", fmap.model)
    assert tuned.functions == fmap.functions
    tuned.save(tmp_path / "map.json")
    again = FunctionMap.load(tmp_path)
    assert again == tuned
    # A derivative of a derivative still names the model on which the layers were located.
    third = again.check_model(id="owner/third", num_layers=L, weights_sha256="d" * 64, allow_other_model=True)
    assert third.derived_from == fmap.model


def test_layers_of_functions(fmap: FunctionMap) -> None:
    assert fmap.layers_of(["ocr", "counting"]) == [1, 2, 4, 5]
    assert fmap.layers_of("ocr") == [4, 5]
    assert fmap.layers_of(["ocr"], expand=1) == [3, 4, 5]
    assert fmap.layers_of(["counting"], expand=99) == list(range(L))
    for functions, message in (
        (["reading"], "no function reading; it has ocr, counting, chart"),
        (["chart"], "No layers were found for chart"),
        ([], "No function named"),
    ):
        with pytest.raises(InputError, match=message):
            fmap.layers_of(functions)
    with pytest.raises(InputError, match="expand is -1"):
        fmap.layers_of(["ocr"], expand=-1)


def test_order_is_by_depth_and_leaves_out_what_has_no_peak(fmap: FunctionMap) -> None:
    assert fmap.order() == ["counting", "ocr"]
    assert fmap.relative_peaks() == {"counting": 2 / 5, "ocr": 4 / 5}


def test_a_map_of_other_pictures_is_warned_of(fmap: FunctionMap, caplog: pytest.LogCaptureFixture) -> None:
    plain = dict(fmap.model)
    own = plain | {"min_pixels": 256, "max_pixels": 9216}
    fmap = fmap.model_copy(update={"model": ModelId(**own)})
    assert FunctionMap.model_validate_json(fmap.to_json()) == fmap
    assert fmap.check_model(**own) is fmap
    assert fmap.check_model(**plain) is fmap  # not told: nothing to compare
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert fmap.check_model(**own | {"max_pixels": 1024}) is fmap
    assert (
        "on pictures of min_pixels 256, max_pixels 9216, here they have min_pixels 256, max_pixels 1024" in caplog.text
    )
    same, other = ModelId(**own), ModelId(**own | {"max_pixels": 1024})
    assert other_pixels(["a", "b", "c"], [same, ModelId(**plain), same]) == ""
    assert "a: min_pixels 256, max_pixels 9216; b: min_pixels 256" in other_pixels(["a", "b"], [same, other])
    assert other_pixels(["a", "b"], [same, other.model_copy(update={"family": "another"})]) == ""
