"""The backward pass after the image: the same values, and the gradients of a pass in which the image is a constant."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch
import trained
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from vfl.errors import InputError
from vfl.models.discover import discover
from vfl.train.adapter.lora import build_lora
from vfl.train.assemble import assemble
from vfl.train.backward.after_image import Shortened, after_image
from vfl.train.preflight.facts import Preflight
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.rows.starts import starts_of

Folder = Callable[[str], Path]
SEES_BOTH_WAYS = ("paligemma",)


def adapted(folder: Path) -> PeftModel:
    """LoRA with random A and B in all decoder layers."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64)
    options = {"r": 4, "init_lora_weights": False, "lora_dropout": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = build_lora(model, range(len(discover(model).layers)), options)
        return get_peft_model(model, config, autocast_adapter_dtype=False).train()


def inputs_of(folder: Path, *questions: str) -> dict[str, torch.Tensor]:
    """Rows with an image and a question each, padded on the right, whose last tokens are the answer."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "right"
    inputs = processor.apply_chat_template(
        [tiny.messages(tiny.picture(), question) for question in questions],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        padding=True,
    )
    inputs.pop("labels", None)
    return dict(inputs.to(torch.float64))


def answers_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last three tokens of each row."""
    kept = inputs["attention_mask"]
    numbers = kept.cumsum(dim=1)
    return (numbers > numbers[:, -1:] - 3) & (kept > 0)


def step(model: PeftModel, inputs: dict[str, torch.Tensor], answers: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """The loss, and the gradients of all trained weights."""
    model.zero_grad()
    labels = inputs["input_ids"].masked_fill(~answers, -100)
    loss = model(**inputs, labels=labels, use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@contextmanager
def constant(decoder: nn.Module, starts: torch.Tensor):
    """Every adapted module's output is a constant before the starts: nothing is run apart."""

    def stop(module, args, output):
        early = torch.arange(output.shape[1]) < starts[:, None]
        return torch.where(early[..., None], output.detach(), output)

    adapters = [module for module in decoder.modules() if isinstance(module, BaseTunerLayer)]
    handles = [module.register_forward_hook(stop) for module in adapters]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if name not in SEES_BOTH_WAYS])
def test_the_image_is_a_constant(family: str, tiny_folder: Folder) -> None:
    folder = tiny_folder(family)
    model, inputs = adapted(folder), inputs_of(folder, "Is it red?", "What is it?")
    parts = discover(model.get_base_model())
    answers = answers_of(inputs)
    starts = starts_of(inputs["input_ids"], answers, parts.image_token_id)
    assert starts.min() > 5
    whole, everything = step(model, inputs, answers)
    with constant(parts.decoder, starts):
        _, expected = step(model, inputs, answers)
    with after_image(parts.decoder, starts):
        loss, ours = step(model, inputs, answers)
    assert float((loss - whole).detach().abs()) < 1e-9
    assert ours.keys() == expected.keys()
    norm = sum(float(gradient.norm() ** 2) for gradient in expected.values()) ** 0.5
    assert norm > 0
    assert max(float((ours[name] - expected[name]).norm()) for name in expected) < 1e-9 * norm
    left_out = sum(float((everything[name] - ours[name]).norm() ** 2) for name in expected) ** 0.5
    assert left_out > 1e-6 * norm  # something does come through the image
    assert not parts.decoder._forward_pre_hooks
    assert not parts.decoder._forward_hooks


def gradients(parts, loss):
    """Of all trained weights."""
    parts.peft_model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in parts.peft_model.named_parameters() if p.grad is not None}


FROM_THE_FIRST = {"tokens": "after_image", "whole_every": 0}
KINDS = [("image", "image"), ("image", "turns", "images"), ("image", "text", "turns"), ("pair", "pair")]


@pytest.mark.parametrize("kinds", KINDS)
def test_a_training_step(kinds, qwen, data_of, tmp_path) -> None:
    """Rows of any kind in a batch: with images that end at other tokens, with several, and with none."""
    pairs = "pair" in kinds
    changed = {"method": "dpo"} if pairs else {"protect": held(data_of("image", "image"))}
    values = trained.settings(qwen, data_of(*kinds), tmp_path, dtype="float64", backward=FROM_THE_FIRST, **changed)
    parts = assemble(Recipe.model_validate(values | {"layers": "full"}), progress=False)
    with torch.no_grad():
        for name, parameter in parts.peft_model.named_parameters():
            if "lora_B" in name and parameter.requires_grad:
                parameter.normal_(0, 0.1)
    parts.peft_model.train()
    batch = parts.trainer.data_collator([parts.prepared.rows[n] for n in range(len(parts.prepared.rows))])
    starts = batch["starts"]
    assert (starts > 0).tolist() == [kind != "text" for kind in kinds] * (2 if pairs else 1) + [True] * (
        len(starts) - len(kinds) * (2 if pairs else 1)
    )
    loss = parts.trainer.compute_loss(parts.peft_model, dict(batch), num_items_in_batch=10)
    ours = gradients(parts, loss)
    batch.pop("starts")
    whole = parts.trainer.compute_loss(parts.peft_model, dict(batch), num_items_in_batch=10)
    everything = gradients(parts, whole)
    with constant(parts.vlm.parts.decoder, starts):
        expected = gradients(parts, parts.trainer.compute_loss(parts.peft_model, dict(batch), num_items_in_batch=10))
    assert float((loss - whole).detach().abs()) < 1e-9
    norm = sum(float(gradient.norm() ** 2) for gradient in expected.values()) ** 0.5
    assert max(float((ours[name] - expected[name]).norm()) for name in expected) < 1e-9 * norm
    assert max(float((everything[name] - expected[name]).norm()) for name in expected) > 1e-4 * norm


def held(old: Path) -> dict:
    """A recipe's `protect`: some rows are anchors."""
    return {"how": "kl", "beta": 3.0, "anchors": {"data": str(old), "share": 0.4}}


def test_a_run(qwen, data_of, run, tmp_path) -> None:
    """It trains, says how much of a batch the backward pass goes through, and leaves a plain adapter."""
    outcome = run(
        qwen,
        data_of("image", "turns", "images"),
        tmp_path / "run",
        backward="after_image",
        layers="auto",
        trainer={"max_steps": 3},
    )
    facts = outcome.flight.after_image
    assert facts is not None
    assert facts.whole_every == 3
    assert 0.05 < facts.tokens < 0.8
    assert (
        f"after the image alone ({facts.tokens:.0%} of the longest batch's), but one step in 3" in outcome.flight.cost
    )
    assert Preflight.load(outcome.preflight) == outcome.flight
    assert outcome.flight.cost in (outcome.adapter / "README.md").read_text(encoding="utf-8")
    assert all(bool(tensor.any()) for name, tensor in trained.weights(tmp_path / "run").items() if "lora_B" in name)


def test_an_image_that_sees_the_question_is_refused(tiny_folder, data_of, run, tmp_path) -> None:
    with pytest.raises(InputError, match=r"sees what follows it.*backward: "):
        run(tiny_folder("paligemma"), data_of("image"), tmp_path / "run", {"check": True}, backward="after_image")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backward": "after_imag"}, "expected whole, after_image, or"),
        ({"also_adapt": ["vision"]}, "also_adapt: vision trains what is there"),
        ({"checkpointing": "on", "backward": {"tokens": "after_image", "whole_every": 0}}, "leave checkpointing out"),
        ({"lora": {"modules_to_save": ["embed_tokens"]}}, "lora.modules_to_save trains other weights"),
    ],
)
def test_what_it_does_not_go_with(changed, words, qwen, tmp_path) -> None:
    values = trained.settings(qwen, tmp_path / "rows.jsonl", tmp_path / "run", backward="after_image")
    with pytest.raises(InputError, match=words):
        read_recipe(values | changed)


def test_one_step_in_so_many_is_whole() -> None:
    assert [Shortened(nn.Linear(1, 1), 3).is_whole(step) for step in range(7)] == [True, False, False] * 2 + [True]
    assert not any(Shortened(nn.Linear(1, 1), 0).is_whole(step) for step in range(4))
