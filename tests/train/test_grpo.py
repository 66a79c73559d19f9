"""GRPO: sampled answers earn what an evaluation calls right, and the better ones become likelier."""

import json
import shutil

import pytest
import torch
import trained

from vfl.errors import InputError
from vfl.evaluate.batches import Shown
from vfl.evaluate.right_answers import RightAnswer
from vfl.models.families import family_of
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.train.arguments import trainer_arguments
from vfl.train.assemble import assemble
from vfl.train.check import preflight_of
from vfl.train.grpo.arguments import check_resumed, period
from vfl.train.grpo.rewards import Asked, reward_of
from vfl.train.grpo.sampling import QuestionSampler, SampledAnswers, trained_as_before
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.processes import launch_facts
from vfl.train.preflight.sampled_round import asked_alone, log_probs, log_probs_of_loss
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.run import train

pytestmark = pytest.mark.long

TIMES = {"step_time", "num_tokens"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two pictures of two things to be counted, twice; the embedded model says so, unless it is made to guess."""
    folder = tmp_path_factory.mktemp("counting")
    pairs = make(folder, ("counting",), pairs=12, seed=5, style=MICRO_STYLE)
    asked = [(p, name) for p in pairs for name in ("image", "source_image")]
    twos = [(p, name) for p, name in asked if (p.answer if name == "image" else p.source_answer) == "2"][:2]
    path = folder / "train.jsonl"
    lines = [
        {
            "images": [str(pair.path(name).relative_to(folder))],
            "messages": trained.turns(pair.question, "2", images=1),
        }
        for pair, name in twos * 2
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def settings(rows, out):
    """Two questions of four a step, at a temperature at which a trained model makes mistakes."""
    return {
        "model": "embedded",
        "out": str(out),
        "method": "grpo",
        "data": {"train": str(rows)},
        "layers": [5, 6, 7],
        "lora": {"r": 8},
        "grpo": {"max_completion_length": 2, "temperature": 4, "rewards": {"right": 1, "readable": 0.1}, "beta": 0.01},
        "freeze": {"below": 0.6, "after": 0.8},
        "trainer": {
            "max_steps": 9,
            "per_device_train_batch_size": 16,
            "learning_rate": 0.015,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "weight_decay": 0,
            "logging_steps": 1,
            "save_steps": 5,
            "disable_tqdm": True,
        },
    }


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("grpo") / "run"
    train(settings(rows, out), progress=False)
    return out


def logged(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines if "reward" in line]


def test_the_reward_goes_up_and_its_parts_are_logged(whole):
    lines = logged(whole)
    rewards = [line["reward"] for line in lines]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3
    for line in lines:
        assert line["reward"] == pytest.approx(
            line["rewards/right/mean"] + line["rewards/readable/mean"] / 10, abs=1e-5
        )
    assert "<h2>Reward</h2>" in (whole / "report.html").read_text()


def test_preflight_and_card_say_what_is_sampled_and_rewarded(whole):
    flight = json.loads((whole / "preflight.json").read_text())
    assert flight["data"]["matches"] == {"number": 4}
    assert (flight["launch"]["generations"], flight["launch"]["global_batch"]) == (8, 16)
    assert flight["launch"]["steps_per_epoch"] == 2
    first = flight["grpo"]["questions"][0]
    known = Preflight.load(whole / "preflight.json")
    assert not [text for text in known.warnings if "earned" in text]
    nothing = known.model_copy(update={"grpo": known.grpo.model_copy(update={"reward": 0.0})})
    assert any("None of 16 sampled answers earned anything" in text for text in nothing.warnings)
    assert first["expected"] == "2"
    assert first["prompt_tail"].endswith("assistant\n")
    assert len(first["sampled"]) == 8
    for said, earned in zip(first["sampled"], first["rewards"], strict=True):
        assert earned == pytest.approx(1.1 if said.strip() == "2" else earned)
    card = (whole / "adapter" / "README.md").read_text()
    assert "8 to each question" in card
    assert "1 x right, 0.1 x readable" in card
    assert json.loads((whole / "adapter" / "adapter_config.json").read_text())["lora_dropout"] == 0


def test_a_resumed_run_is_one_that_was_not_interrupted(whole, rows, tmp_path):
    """From the middle of an epoch, over the next ones' orders, into the steps whose lower layers are frozen."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "adapter")
    shutil.rmtree(out / "checkpoints" / "checkpoint-9")
    (out / "report.html").unlink()
    train(settings(rows, out), progress=False, resume=True)
    assert trained.same(trained.weights(out), trained.weights(whole))
    assert logged(out) == logged(whole)


def test_the_layers_that_are_frozen_stay(whole):
    """KL's reference is a pass without the adapter, behind which PEFT would let all of it be trained again."""
    # The last checkpoint's optimizer has taken a step less for what was frozen in the last ones.
    state = torch.load(whole / "checkpoints" / "checkpoint-9" / "optimizer.pt")
    steps = {int(each["step"]) for each in state["state"].values()}
    assert steps == {7, 9}


FAMILIES = ("llava", "gemma3", "internvl", "llava_onevision")


@pytest.fixture(scope="module")
def assembled(tiny_folder, data_of, tmp_path_factory):
    def of(family):
        values = trained.settings(
            tiny_folder(family),
            data_of("image", "image"),
            tmp_path_factory.mktemp("assembled"),
            method="grpo",
            layers=[3],
            grpo={"num_generations": 2, "max_completion_length": 3, "temperature": 0.7, "beta": 0.1},
            trainer={"per_device_train_batch_size": 4},
            lora={"r": 4},
        )
        recipe = Recipe.model_validate(values)
        return recipe, assemble(recipe, progress=False)

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_reads_what_the_model_says_to_a_question_alone(family, assembled):
    _, parts = assembled(family)
    trainer, vlm = parts.trainer, parts.vlm
    questions = trainer.data_collator([parts.prepared.rows[n] for n in (0, 0, 1, 1)])
    vlm.model.train()
    output = trainer._generate_and_score_completions(questions)
    vlm.model.eval()
    with torch.no_grad():
        read = log_probs_of_loss(trainer, output)
        for row, question in enumerate(questions):
            said = output["completion_ids"][row][output["completion_mask"][row].bool()]
            alone = log_probs(vlm, asked_alone(vlm, question["prompt"]), said, 0.7)
            torch.testing.assert_close(read[row, : len(said)], alone, rtol=1e-4, atol=1e-4)


def test_a_family_that_would_be_read_otherwise_is_refused(assembled, monkeypatch):
    """Gemma 3 as TRL has it, with one kind of token too many in front."""
    recipe, parts = assembled("gemma3")
    monkeypatch.delattr(SampledAnswers, "_get_per_token_logps_and_entropies")
    with pytest.raises(InputError, match="other probabilities from Gemma3ForConditionalGeneration"):
        preflight_of(recipe, parts)


def test_rows_that_make_no_round_are_refused(tiny_folder, data_of, tmp_path):
    def refused(model, *kinds, **changed):
        values = trained.settings(tiny_folder(model), data_of(*kinds), tmp_path, method="grpo", lora={}, **changed)
        with pytest.raises(InputError) as error:
            assemble(Recipe.model_validate(values), progress=False)
        return str(error.value)

    two = {"grpo": {"num_generations": 2}}
    assert "1 of 2 rows have no image" in refused("qwen2_5_vl", "image", "text", **two)
    assert "Answers to 4 questions" in refused("qwen2_5_vl", "image", trainer={"per_device_train_batch_size": 8}, **two)
    assert "reads its question in both directions" in refused("paligemma", "image", **two)
    assert "can't be read as 'yesno'" in refused("qwen2_5_vl", "image", data={"match": "yesno"}, **two)
    assert "fits method: dpo" in refused("qwen2_5_vl", "pair", **two)


BASE = {"out": "run", "layers": [1], "data": {"train": "rows.json"}, "method": "grpo"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "sft", "grpo": {}}, "use it with method: grpo"),
        ({"method": "dpo", "data": {"train": "rows.json", "match": "box"}}, r"data\.match is about answers"),
        ({"grpo": {"rewards": {"right": 0}}}, "no reward has a weight above 0"),
        ({"grpo": {"rewards": {"wrong": 1}}}, "grpo.rewards"),
        ({"grpo": {"tempertaure": 1}}, "did you mean temperature"),
        ({"grpo": {"use_vllm": True}}, "sampled by Transformers"),
        ({"grpo": {"reward_weights": [1]}}, "grpo.rewards instead"),
        ({"grpo": {"loss_type": "ppo"}}, "expected one of grpo, bnpo"),
        ({"grpo": {"num_generations": 1}}, "2 or more"),
        ({"trainer": {"beta": 0.1}}, "set grpo.beta instead"),
        ({"trainer": {"per_device_train_batch_size": 6}}, "6 answers are sampled at a time"),
        ({"grpo": {"num_iterations": 3}, "trainer": {"save_steps": 4}}, "give a multiple of 3"),
        ({"lora": {"lora_dropout": 0.1}}, "dropout"),
        ({"evaluation": {"heldout": "rows.json"}}, "no loss of held-out rows"),
        ({"data": {"train": "rows.json", "token_weights": "w.parquet"}}, "answers that it samples"),
        ({"data": {"train": "rows.json", "replay": {"probes": "micro"}}}, r"data\.replay\.data instead"),
        ({"protect": {"how": "kl", "functions": ["ocr"], "anchors": {"probes": "micro"}}}, r"grpo\.beta"),
        ({"layers": {"rule": "gradient", "count": 2}}, "vfl layers"),
        ({"backward": "after_image"}, "for method: sft and dpo, not grpo"),
    ],
)
def test_what_grpo_can_not_do_is_refused_in_a_sentence(changed, named, tmp_path):
    with pytest.raises(InputError, match=named):
        trainer_arguments(read_recipe(BASE | changed), torch.float32)


def test_rewards_are_what_an_evaluation_calls_right():
    qwen, paligemma = family_of("qwen2_5_vl"), family_of("paligemma")
    shown = Shown(((200, 100),), ((400, 200),))  # the model sees it twice as large
    number, box = Asked(RightAnswer("3", "number")), Asked(RightAnswer("[10, 10, 60, 60]", "box"), shown)
    assert [reward_of("right", number, text, qwen) for text in ("There are three.", "4", "")] == [1, 0, 0]
    assert [reward_of("readable", number, text, qwen) for text in ("There are three.", "4", "none?", "?")] == [
        1,
        1,
        1,
        0,
    ]
    assert reward_of("iou", number, "3", qwen) is None
    exact, half = '{"bbox_2d": [20, 20, 120, 120]}', "[20, 20, 120, 70]"
    assert [reward_of("right", box, text, qwen) for text in (exact, half, "no box")] == [1, 0, 0]
    assert [reward_of("iou", box, text, qwen) for text in (exact, half, "no box")] == [1, 0.5, 0]
    assert reward_of("right", box, "<loc0102><loc0051><loc0614><loc0307>", paligemma) == 1
    inside = Asked(RightAnswer("[10, 10, 60, 60]", "point"), shown)
    assert [reward_of("right", inside, text, qwen) for text in ("[100, 100]", "[180, 180]")] == [1, 0]
    near = Asked(RightAnswer("[50, 50]", "point"), shown)
    assert [reward_of("right", near, text, qwen) for text in ("[104, 104]", "[180, 104]")] == [1, 0]
    thought = Asked(RightAnswer("yes", "yesno"))
    assert [reward_of("right", thought, t, qwen) for t in ("<think>no?</think> Yes.", "<think>yes")] == [1, 0]


def test_an_epoch_has_an_order_of_its_own_wherever_a_run_begins():
    sampler = QuestionSampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=1, seed=3)
    sampler.set_epoch(0)
    first, going_on = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    again = QuestionSampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=1, seed=3)
    again.set_epoch(1)
    assert list(again) == second
    assert first != second
    assert len(first) == len(going_on) == 12, "a round that is not whole is left out"


def test_rounds_and_steps(tmp_path):
    assert [period(4, 4), period(4, 2), period(3, 2), period(1, 8)] == [1, 2, 3, 1]
    trainer = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    grpo = {"num_iterations": 2, "num_generations": 4, "steps_per_generation": 2}
    recipe = read_recipe(BASE | {"out": str(tmp_path), "trainer": trainer | {"save_steps": 2}, "grpo": grpo})
    args = trainer_arguments(recipe, torch.float32)
    facts = launch_facts(args, 13)  # three rounds of four questions, each trained on in two steps
    assert (facts.steps_per_epoch, facts.total_steps, facts.generations) == (6, 12, 4)
    check_resumed(args, 8, facts.steps_per_epoch)
    with pytest.raises(InputError, match="middle of a round"):
        check_resumed(args, 9, facts.steps_per_epoch)


def test_what_is_trained_is_as_before_behind_a_reference_pass():
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    with trained_as_before(model):
        model.requires_grad_(True)
    assert [p.requires_grad for p in model.parameters()] == [False, True]
