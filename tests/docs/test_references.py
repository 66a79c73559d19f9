"""Pages that are made from the code hold all of it, and written pages name what there is."""

import ast
import re

import pytest
from fault_jobs import JOBS
from pages import DOCS, ROOT, blocks_of
from pages_from_code import api, commands, errors, faults, floors, hook, metrics, policies, settings, sources
from pydantic import BaseModel

import vfl
from vfl.metrics.measure import known_metrics
from vfl.probes.pair import Pair


@pytest.fixture(scope="module")
def settings_page():
    return settings.page()


def test_every_field_of_every_setting_has_its_row(settings_page):
    sections = settings_page.split("\n## ")[1:]
    assert len(sections) == len(settings.SETTINGS)
    for (_, _, where), section in zip(settings.SETTINGS, sections, strict=True):
        rows = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
        model = settings.resolve(where)
        assert set(every_key(model)) == set(rows), where


def every_key(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Keys of the JSON schema, which pydantic makes by itself."""
    schema = model.model_json_schema()
    return keys_in(schema, schema.get("$defs", {}), prefix)


def keys_in(node: dict, known: dict, prefix: str) -> list[str]:
    if "$ref" in node:
        node = known[node["$ref"].rpartition("/")[2]]
    keys = []
    for name, inner in node.get("properties", {}).items():
        keys += [prefix + name, *keys_in(inner, known, f"{prefix}{name}.")]
    for part in [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]:
        keys += keys_in(part, known, prefix)
    for name, stands_for in (("additionalProperties", "NAME"), ("items", "N")):
        if isinstance(node.get(name), dict) and node is not known:
            keys += keys_in(node[name], known, f"{prefix}{stands_for}.")
    return list(dict.fromkeys(keys))


def test_no_settings_are_forgotten(settings_page):
    """A class that is called settings is on the page, at the top or inside another."""
    shown = {model.__name__ for _, _, where in settings.SETTINGS for model in tree_of(settings.resolve(where))}
    there = {
        node.name
        for _, tree in sources.modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Recipe")) and node.bases
    }
    assert there <= shown


def tree_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model, those it builds on, and those inside it."""
    models = {base for base in model.__mro__ if isinstance(base, type) and issubclass(base, BaseModel)}
    for field in model.model_fields.values():
        for inner, _ in settings.inner_models(field.annotation):
            models |= tree_of(inner)
    return models


def test_every_command_and_option_has_its_row():
    page = commands.page()
    for name, command in commands.commands():
        section = page.split(f"## `{name}`\n", 1)[1].split("\n## ")[0]
        for parameter in command.params:
            assert getattr(parameter, "hidden", False) or parameter.opts[0] in section or parameter.metavar in section


def test_every_metric_has_its_section_with_source_and_how_to_read_it():
    page = metrics.page()
    known = known_metrics()
    assert len(known) >= 20
    for name, metric in known.items():
        section = page.split(f"{{ #{name} }}", 1)[1].split("\n## ")[0]
        assert all(text in section for text in (metric.read, metric.source, metric.equation))


def test_pictures_of_the_gallery_are_of_metrics():
    assert {path.stem for path in (DOCS / "gallery").rglob("*.png")} <= known_metrics().keys()


def test_every_policy_is_explained():
    page = policies.page()
    assert all(page.count(f"`{name}`") >= 2 for name in policies.names())


def test_every_public_name_has_its_entry():
    page = api.page()
    assert all(f"## vfl.{name} " in page for name in vfl.__all__ if name != "__version__")


def test_every_room_is_in_the_picture_and_the_contract_is_kept():
    made, stacked = floors.rooms(), floors.floors()
    placed = [name for floor in stacked for name in floor]
    assert set(made) - set(placed) == {"__main__", "callable_package", "errors"}
    drawing = floors.picture()
    assert all(f">{name}</text>" in drawing for name in placed)
    heights = {name: len(stacked) - number for number, floor in enumerate(stacked) for name in floor}
    for name in placed:
        assert all(heights[other] < heights[name] for other in made[name].imports & heights.keys()), name


def test_the_page_on_faults_holds_what_the_tests_do():
    page = hook.filled((DOCS / "faults.md").read_text(encoding="utf-8"))
    assert "{{" not in page
    for name, job in JOBS.items():
        killed, full, other = (line for line in page.splitlines() if line.startswith(f"| `vfl {name}` |"))
        assert re.search(rf"\| {job.kills} kills?, slow {job.slow_kills} \|", killed)
        assert f"| {job.full} place" in full
        assert job.again in killed
        assert job.again in full
        assert ("refused" in other) is not job.shared
    assert "20 times, the slow suite 200 times" in page
    assert "full at 21 places" in page
    assert faults.table() in page


def test_errors_are_quoted_whole():
    text = errors.quoted("must have equal pixel sizes")
    assert text.startswith("the images of a pair")
    with pytest.raises(ValueError, match="0 errors"):
        errors.quoted("an error that nobody raises")


@pytest.mark.parametrize("model", [Pair])
def test_the_page_on_pairs_names_every_key(model):
    page = (DOCS / "pair-format.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert set(model.model_fields) <= rows
    (example,) = (block.text for block in blocks_of(DOCS / "pair-format.md") if block.language == "json")
    assert model.model_validate_json(example).match == "number"


def test_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `vfl/(\w+)", text, re.MULTILINE))
    assert named == {name for floor in floors.floors() for name in floor}
