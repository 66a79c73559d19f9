"""The same scores three ways: this engine, one full forward per ablation through hooks, and the plain ones alone.

Every contender runs the vision tower once and computes logits where answer tokens are predicted and nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.scoring.task import Scored, Task
from vfl.engine.teacher_forcing import teacher_forced

Run = Callable[[], Scored]
ENGINE, HOOKS, PLAIN = "this engine", "hooks", "one plain forward"
NAMES = (ENGINE, HOOKS, PLAIN)


def prepare(name: str, task: Task) -> Run:
    """A contender's run over `task`."""
    return partial({ENGINE: by_engine, HOOKS: by_hooks, PLAIN: plainly}[name], task)


def by_engine(task: Task) -> Scored:
    """One forward with the ablated rows beside it."""
    scores = teacher_forced(task.vlm, task.batch, task.ablations)
    return Scored(scores.logprobs, scores.top1, scores.error_l2)


@torch.no_grad()
def by_hooks(task: Task) -> Scored:
    """A plain forward, then one forward per ablation whose chosen layers get another mask."""
    embedded = embed(task)
    rows = [score(task, embedded)]
    for layers in task.ablations.values():
        with hidden(task, layers):
            rows.append(score(task, embedded))
    return Scored(torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows]), rows[0][2])


@torch.no_grad()
def plainly(task: Task) -> Scored:
    """The plain scores alone."""
    logprobs, top1, errors = score(task, embed(task))
    return Scored(logprobs[None], top1[None], errors)


def embed(task: Task) -> torch.Tensor:
    """(B, T, d) embeddings of the batch with the images' features in place."""
    model: Any = task.vlm.model
    ids = task.batch.inputs["input_ids"].to(task.vlm.device)
    pixels = task.batch.inputs["pixel_values"].to(task.vlm.device, task.vlm.dtype)
    embedded: torch.Tensor = model.get_input_embeddings()(ids)
    features = model.get_image_features(pixel_values=pixels).pooler_output
    embedded[ids == model.config.image_token_id] = torch.cat(list(features)).to(embedded.dtype)
    return embedded


def score(task: Task, embedded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,) log-probabilities, hits and EL2N of the answer tokens by one forward."""
    normed = task.vlm.parts.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
    rows, places = (part.to(normed.device) for part in task.batch.answers.nonzero(as_tuple=True))
    answer_ids = task.batch.inputs["input_ids"].to(normed.device)[rows, places]
    logits = task.vlm.parts.head(normed[rows, places - 1])
    logprobs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
    chosen = logprobs.gather(1, answer_ids[:, None])[:, 0]
    wrong = logprobs.exp()
    wrong[torch.arange(len(answer_ids), device=answer_ids.device), answer_ids] -= 1
    return chosen.cpu(), (logits.argmax(-1) == answer_ids).cpu(), wrong.norm(dim=-1).cpu()


@contextmanager
def hidden(task: Task, layers: Iterable[int]) -> Iterator[None]:
    """At these layers, what follows the image sees no vision tokens."""
    length, device = task.batch.answers.shape[1], task.vlm.device
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    mask[int(task.slots[-1]) + 1 :, task.slots] = False
    mask = mask[None, None]

    def replace(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"attention_mask": mask}

    handles = [task.vlm.layers[i].register_forward_pre_hook(replace, with_kwargs=True) for i in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
