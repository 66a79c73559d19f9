"""A short training run of a tiny model with LoRA, evaluated or not; as a script, each rank of a group runs it.

short_training.py MODEL OUT
"""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

sys.path.append(str(Path(__file__).parent))

import tiny

import vfl
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.engine.untouched import untouched
from vfl.evaluate.items import EvalItem
from vfl.models.vlm import VLM
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.train.callback.bar import use_bar
from vfl.train.callback.evaluation import EvaluationCallback
from vfl.train.callback.tracking import offline_without_login

QUESTIONS = ("How many cats?", "What text can you read in the image? Answer with the text only.")


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Eight questions on made pictures, all of the same length."""

    def __init__(self, vlm: VLM) -> None:
        inputs = [vlm.ask(QUESTIONS[0], tiny.picture(seed=seed)).inputs for seed in range(8)]
        self.rows = [{**row, "labels": row["input_ids"]} for row in inputs]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


@cache
def items(folder: Path, count: int = 7) -> list[EvalItem]:
    """Questions of two groups; every other one is answered right before training, the others hardly ever."""
    vlm, _ = adapted(folder)
    asked = []
    for seed in range(count):
        question, picture = QUESTIONS[seed % 2], tiny.picture(seed=seed)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        expected = "?"
        if seed % 4 < 2:
            with untouched(vlm):
                (expected,) = sweep(vlm, vlm.ask(question, picture), [Plan.own()], max_new_tokens=6).texts
        asked.append(
            EvalItem(
                id=f"item-{seed}",
                group=("counting", "ocr")[seed % 2],
                messages=({"role": "user", "content": content},),
                images=(lambda picture=picture: picture,),
                expected=expected,
                match="exact",
                max_new_tokens=6,
            )
        )
    return asked


def adapted(folder: Path) -> tuple[VLM, PeftModel]:
    """A tiny model with LoRA that drops at random, the same at each call."""
    vlm = vfl.load(folder, device="cpu")
    torch.manual_seed(0)
    options = {"r": 4, "lora_dropout": 0.2, "init_lora_weights": False, "target_modules": r".*layers\.[12].*q_proj"}
    return vlm, get_peft_model(vlm.model, LoraConfig(**options)).train()


def trainer_of(vlm: VLM, model: PeftModel, out: Path, callback: EvaluationCallback | None, **settings: Any) -> Trainer:
    """Four steps over shuffled rows, a checkpoint after the second."""
    settings = {"report_to": "none", "disable_tqdm": True, "save_steps": 2} | settings
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        use_cpu=True,
        max_steps=4,
        logging_steps=1,
        learning_rate=0.01,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        seed=3,
        **settings,
    )

    def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    callbacks = [callback] if callback else []
    return Trainer(model, arguments, train_dataset=Rows(vlm), data_collator=collate, callbacks=callbacks)


def trained(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's weights."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


if __name__ == "__main__":
    offline_without_login()
    vlm, model = adapted(Path(sys.argv[1]))
    out = Path(sys.argv[2])
    pairs = make(out / f"suite-{os.environ['RANK']}", ("counting",), pairs=2, style=MICRO_STYLE)
    asked_items = items(Path(sys.argv[1]))
    callback = EvaluationCallback(vlm, asked_items, out, every=2, batch=2, metrics=["cosine"], metric_pairs=pairs)
    trainer = trainer_of(vlm, model, out, callback, report_to="wandb", disable_tqdm=False)
    use_bar(trainer, callback)
    asked = []
    generate = vlm.model.generate
    vlm.model.generate = lambda **inputs: asked.append(len(inputs["input_ids"])) or generate(**inputs)
    trainer.train()
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps({"asked": asked, "shown": callback.accuracies}))
