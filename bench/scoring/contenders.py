"""The same scores four ways: this engine, one full forward per ablation through hooks, the cached image and then all
ablations as one batch, and the plain ones alone.

Every contender runs the vision tower once and computes logits where answer tokens are predicted and nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache

from bench.scoring.task import Scored, Task
from vfl.engine.teacher_forcing import teacher_forced

Run = Callable[[], Scored]
ENGINE, HOOKS, CACHED, PLAIN = "this engine", "hooks", "cache and batch", "one plain forward"
NAMES = (ENGINE, HOOKS, CACHED, PLAIN)


def prepare(name: str, task: Task) -> Run:
    """A contender's run over `task`."""
    return partial({ENGINE: by_engine, HOOKS: by_hooks, CACHED: by_cache, PLAIN: plainly}[name], task)


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
def by_cache(task: Task) -> Scored:
    """The keys and values up to the image's end once; then the text behind it, plain and ablated, as one batch.

    What one writes who knows that an ablation changes nothing before the image's end. Every ablation still runs through
    all layers, those below its first one too.
    """
    embedded, end = embed(task), int(task.slots[-1]) + 1
    copies = len(task.ablations) + 1
    cache = DynamicCache()
    task.vlm.parts.decoder(inputs_embeds=embedded[:, :end], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(copies)
    with hidden_rows(task, end, copies):
        text = embedded[:, end:].repeat_interleave(copies, 0)
        states = task.vlm.parts.decoder(inputs_embeds=text, past_key_values=cache, use_cache=True).last_hidden_state
    rows, places = task.batch.answers.nonzero(as_tuple=True)
    given = task.batch.inputs["input_ids"][rows, places].to(states.device)
    behind = (places - 1 - end).to(states.device)
    scored = [judge(task, states[rows.to(states.device) * copies + copy, behind], given) for copy in range(copies)]
    logprobs, top1, errors = (torch.stack(parts) for parts in zip(*scored, strict=True))
    return Scored(logprobs, top1, errors[0])


@contextmanager
def hidden_rows(task: Task, end: int, copies: int) -> Iterator[None]:
    """Of `copies` rows a conversation, the first sees all, and each other no vision tokens at its ablation's layers."""
    num_rows, length = task.batch.answers.shape
    causal = torch.ones(length, length, dtype=torch.bool, device=task.vlm.device).tril()[end:]
    handles = []
    for index, layer in enumerate(task.vlm.layers):
        mask = causal.repeat(copies, 1, 1, 1)  # (copies, 1, text, tokens)
        for copy, layers in enumerate(task.ablations.values(), 1):
            if index in layers:
                mask[copy, :, :, task.slots] = False
        handles.append(layer.register_forward_pre_hook(_masked(mask.repeat(num_rows, 1, 1, 1)), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _masked(mask: torch.Tensor) -> Callable[..., tuple[Any, dict[str, Any]]]:
    return lambda module, args, kwargs: (args, kwargs | {"attention_mask": mask})


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
    return judge(task, normed[rows, places - 1], answer_ids)


def judge(
    task: Task, normed: torch.Tensor, answer_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,) log-probabilities, hits and EL2N of N tokens from the (N, d) states that predict them."""
    logits = task.vlm.parts.head(normed)
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

    handles = [task.vlm.layers[i].register_forward_pre_hook(_masked(mask), with_kwargs=True) for i in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
