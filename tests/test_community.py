"""What people meet in the repository agrees with the code: CI, templates, hooks, citation, container."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import vfl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
STEPS = [step for job in CI["jobs"].values() for step in job["steps"]]


def test_ci_calls_targets_that_there_are():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"].split() for step in STEPS if "run" in step]
    assert all(command[0] == "make" and command[1] in targets for command in commands)
    assert {"quality", "test", "newcomer"} == {command[1] for command in commands}


def test_ci_runs_on_every_python_that_is_supported_with_no_rights():
    supported = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert CI["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
    assert CI["permissions"] == {"contents": "read"}


def test_actions_are_pinned_by_commit():
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)


@pytest.mark.parametrize("name", ["bug", "model", "idea"])
def test_issue_forms_ask_something(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert len({part["id"] for part in form["body"]}) == len(form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["version"], cited["license"]) == (vfl.__version__, PROJECT["license"])
    assert set(cited["keywords"]) == set(PROJECT["keywords"])


def test_hooks_run_what_make_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    quality = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in quality, hook["id"]


def test_the_container_copies_what_there_is_and_is_not_ignored():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    (extras,) = re.findall(r"'\.\[(.*)\]'", text)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_dev_container_makes_the_environment_that_it_names():
    lines = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8").splitlines()
    content = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    assert "make .venv/.installed" in content["postCreateCommand"]
    version = content["image"].partition("python:")[2].partition("-")[0]
    assert version in CI["jobs"]["test"]["strategy"]["matrix"]["python"]
