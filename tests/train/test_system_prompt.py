"""One system prompt for every row and every question, as if each had it; refused where there is no such role."""

import json

import pytest
import trained
from preflights import preflight
from transformers import AutoProcessor

from vfl.errors import InputError
from vfl.evaluate.config import EvaluateConfig
from vfl.evaluate.run import items_of
from vfl.models.system_turn import check_system, with_system
from vfl.train.adapter.card import card
from vfl.train.assemble import assemble
from vfl.train.callback.of_recipe import evaluation_callback_of
from vfl.train.preflight.tables import system_text
from vfl.train.recipe import Recipe, read_recipe

PROMPT = 'Answer "in one word".\nDo {not} explain.'


def turn(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("family", ["qwen2_vl", "llava", "llava_next", "idefics3", "gemma3", "llava_onevision"])
def test_a_template_with_a_system_role_is_taken(family, tiny_folder):
    check_system(AutoProcessor.from_pretrained(tiny_folder(family)))


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}", "as it writes a user's"),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content[0].text }}{% endfor %}",
            "leaves a system turn out",
        ),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}", "No system here"),
    ],
)
def test_a_template_without_is_refused(template, named, qwen, tiny_folder):
    with pytest.raises(InputError, match=f"has no system role.*{named}"):
        check_system(AutoProcessor.from_pretrained(qwen), template)
    with pytest.raises(InputError, match="as it writes a user's"):
        check_system(AutoProcessor.from_pretrained(tiny_folder("paligemma")))


@pytest.fixture(scope="module")
def files(data_of, tmp_path_factory):
    """Rows of every kind, the first with a system turn of its own; and the same with PROMPT in each."""
    rows = [json.loads(line) for line in data_of("image", "text", "turns").read_text().splitlines()]
    rows[0]["messages"].insert(0, turn("system", "Be kind."))
    asked = {"images": [], "prompt": rows[1]["messages"][:1], "completion": rows[1]["messages"][1:]}
    folder = data_of("image", "text", "turns").parent
    own, given = folder / "own.jsonl", folder / "given.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in [*rows, asked]))
    told = [{**row, "messages": list(with_system(row["messages"], PROMPT))} for row in rows]
    told.append({**asked, "prompt": list(with_system(asked["prompt"], PROMPT))})
    own.write_text("".join(json.dumps(row) + "\n" for row in told))
    return given, own


def test_rows_are_those_that_have_the_prompt_themselves(files, qwen, tmp_path):
    given, own = files
    evaluation = {"data": {"own": {"path": str(given)}}}
    values = trained.settings(qwen, given, tmp_path, data={"system_prompt": PROMPT}, evaluation=evaluation)
    recipe = Recipe.model_validate(values)
    parts = assemble(recipe, progress=False)
    without = assemble(Recipe.model_validate(trained.settings(qwen, own, tmp_path)), progress=False)
    collator = parts.trainer.data_collator
    for ours, theirs in zip(parts.prepared.rows, without.prepared.rows, strict=True):
        assert (ours["messages"], ours["prompt"]) == (theirs["messages"], theirs["prompt"])
        batch, expected = collator([ours]), collator([theirs])
        assert batch["input_ids"].equal(expected["input_ids"])
        assert batch["labels"].equal(expected["labels"])
    facts = parts.prepared.facts
    assert (facts.system_prompt, facts.system_added, facts.system_replaced) == (PROMPT, 3, 1)
    assert without.prepared.facts.system_prompt is None
    # What the run asks, before and after, and what `vfl evaluate` asks.
    callback = evaluation_callback_of(recipe, parts.vlm)
    config = EvaluateConfig(model="m", out=tmp_path, data={"own": {"path": [given]}}, system_prompt=PROMPT)
    for items in (callback.items, items_of(config, parts.vlm)[0]):
        assert len(items) == 4
        assert [item.messages[0] for item in items] == [turn("system", PROMPT)] * 4
        assert [sum(turn["role"] == "system" for turn in item.messages) for item in items] == [1] * 4


def test_a_model_without_the_role_is_refused_before_its_rows_are_read(tiny_folder, data_of, tmp_path):
    values = trained.settings(tiny_folder("paligemma"), data_of("image"), tmp_path, data={"system_prompt": PROMPT})
    with pytest.raises(InputError, match="has no system role"):
        assemble(Recipe.model_validate(values), progress=False)
    with pytest.raises(InputError, match="system_prompt"):
        read_recipe({**values, "data": {**values["data"], "system_prompt": " "}})


def test_the_card_says_it_and_asks_under_it():
    flight = preflight()
    facts = flight.data.model_copy(update={"system_prompt": PROMPT, "system_added": 2, "system_replaced": 1})
    content = card(flight.model_copy(update={"data": facts}), {"r": 4}).content
    code = content.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert json.dumps(PROMPT) in code
    assert "System prompt" in content
    assert "added to 2 rows, in place of 1 rows' own" in system_text(facts)
