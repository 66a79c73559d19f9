"""Every field of a recipe with a right value, one of a wrong type and one out of range: taken, or refused by name."""

import dataclasses
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest
from peft import LoraConfig
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from trl import DPOConfig, GRPOConfig, SFTConfig

from vfl.errors import InputError
from vfl.train.data_config import DataConfig, ReplayConfig
from vfl.train.evaluation_config import EvaluationConfig
from vfl.train.field_values import RANGES, checked
from vfl.train.layers.protect import ProtectConfig
from vfl.train.old_rows import OldRowsConfig
from vfl.train.recipe import Recipe, read_recipe

BASE = {"out": "run", "layers": [1], "data": {"train": "rows.json", "replay": {"probes": "micro"}}, "evaluation": {}}
BASE["protect"] = {"how": "kl", "functions": ["ocr"], "anchors": {"probes": "micro"}}
BLOCKS: dict[str, type[BaseModel]] = {
    "": Recipe,
    "data.": DataConfig,
    "data.replay.": ReplayConfig,
    "protect.": ProtectConfig,
    "protect.anchors.": OldRowsConfig,
    "evaluation.": EvaluationConfig,
}
# Where the default is none, or stands for "left out".
RIGHT = {"out": "run", "layers": [2], "data": BASE["data"], "data.train": "rows.json", "data.replay.data": []}
RIGHT |= {"data.replay.probes": "micro", "evaluation.functions": ["counting"], "data.replay.functions": ["counting"]}
RIGHT |= {"protect.functions": ["ocr"], "protect.how": "kl", "protect.anchors": BASE["protect"]["anchors"]}
RIGHT |= {"protect.anchors.data": [], "protect.anchors.probes": "micro"}
# Any key goes in; what is inside has a test of its own below. Paths and names take any text.
OPEN = {"lora", "trainer"}


def all_fields() -> Iterator[tuple[str, FieldInfo]]:
    for prefix, kind in BLOCKS.items():
        for name, field in kind.model_fields.items():
            yield prefix + name, field


FIELDS = dict(all_fields())


def recipe_with(key: str, value: Any) -> Recipe:
    values = deepcopy(BASE)
    *path, last = key.split(".")
    inner = values
    for part in path:
        inner = inner[part]
    inner[last] = value
    return read_recipe(values)


def out_of_range(field: FieldInfo) -> Iterator[Any]:
    """A value just beyond each limit that the field has."""
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            yield limit.ge - 1
        elif isinstance(limit, annotated_types.Gt):
            yield limit.gt
        elif isinstance(limit, annotated_types.Lt):
            yield limit.lt
        elif isinstance(limit, annotated_types.MinLen):
            yield []
    if any(get_origin(kind) is Literal for kind in (field.annotation, *get_args(field.annotation))):
        yield "no-such-choice"


@pytest.mark.parametrize("key", FIELDS)
def test_a_right_value_is_taken(key):
    default = FIELDS[key].get_default(call_default_factory=True)
    value = RIGHT.get(key, default)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    recipe_with(key, value)


@pytest.mark.parametrize("key", FIELDS)
def test_a_wrong_type_is_refused_by_name(key):
    wrong: Any = "a text" if key in OPEN else {"no": {"such": "thing"}}
    with pytest.raises(InputError, match=key.partition(".")[0]):
        recipe_with(key, wrong)


@pytest.mark.parametrize("key", [key for key, field in FIELDS.items() if list(out_of_range(field))])
def test_a_value_out_of_range_is_refused_by_name(key):
    for value in out_of_range(FIELDS[key]):
        with pytest.raises(InputError, match=key):
            recipe_with(key, value)


def test_every_number_of_a_recipe_has_a_range():
    numbers = [key for key, field in FIELDS.items() if {int, float} & {field.annotation, *get_args(field.annotation)}]
    assert numbers
    assert [key for key in numbers if not list(out_of_range(FIELDS[key]))] == []


KINDS = {"trainer": DPOConfig, "grpo": GRPOConfig, "lora": LoraConfig}
LIMITED = [(block, name) for block, limits in RANGES.items() for name in limits]


@pytest.mark.parametrize(("block", "name"), LIMITED)
def test_numbers_of_trl_and_peft(block, name):
    kind = KINDS[block]
    default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
    value = 1 if default is None else default
    assert checked(block, kind, {name: value}) == {name: value}
    for wrong in ("fast", [1], {"a": 1}, True, float("nan"), -2):
        with pytest.raises(InputError, match=rf"{block}\.{name} is .*; expected .*number"):
            checked(block, kind, {name: wrong})


SIMPLE = [
    (block, kind, field.name, field.default)
    for block, kind in (("trainer", SFTConfig), ("trainer", DPOConfig), ("grpo", GRPOConfig), ("lora", LoraConfig))
    for field in dataclasses.fields(kind)
    if field.init and isinstance(field.default, bool | int | float)
]


def test_every_default_is_taken_and_no_switch_or_number_takes_a_mapping():
    for block, kind, name, default in SIMPLE:
        assert checked(block, kind, {name: default}) == {name: default}, name
        if name not in ("init_lora_weights", "include_num_input_tokens_seen"):  # also of other kinds
            with pytest.raises(InputError, match=name):
                checked(block, kind, {name: {"no": "thing"}})


def test_a_number_written_as_text_is_a_number():
    assert checked("trainer", SFTConfig, {"learning_rate": "2e-4"}) == {"learning_rate": 2e-4}


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("out: x\nlayers: [1]\ndata: {train: rows.json}\nlora: {r: 4}\nseed: 1\nlora: {r: 8}\n")
    with pytest.raises(InputError, match=r"'lora' stands twice.*line 6"):
        read_recipe(file)
    file.write_text("out: x\nlayers: [1]\ndata: {train: rows.json, train: others.json}\n")
    with pytest.raises(InputError, match="'train' stands twice"):
        read_recipe(file)
