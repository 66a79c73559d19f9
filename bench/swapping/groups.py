"""All ordered pairs of a group of images, swept by the engine and by prefixes that a careful engineer keeps.

Of n images each is asked once unswapped and once for each other image and layer: n + n (n - 1) L rows.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from transformers import DynamicCache

from bench.swapping.cached_prefix import answered, prefilled
from bench.swapping.hooks import embed
from bench.swapping.model import Answers, Shape, Task, picture, question
from vfl.engine.image_cache import slots_of
from vfl.engine.joint_prefill import prefill_all
from vfl.engine.plan import Plan
from vfl.engine.row_start import row_start
from vfl.engine.sweep import sweep
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class Group:
    """One question on n images.

    Attributes:
        vlm: the model.
        prompts: the question on each image.
        num_tokens: of each answer.
    """

    vlm: VLM
    prompts: list[Encoded]
    num_tokens: int

    @property
    def pairs(self) -> int:
        """Ordered pairs n (n - 1)."""
        return len(self.prompts) * (len(self.prompts) - 1)

    def pair(self) -> Task:
        """The first of them, for sweeps of a pair alone."""
        target, source = self.prompts[:2]
        return Task(self.vlm, target, source, slots_of(target.spans, self.vlm.device), self.num_tokens)


def group(vlm: VLM, shape: Shape, images: int, num_tokens: int) -> Group:
    """A question of random words on pictures of random blocks."""
    asked = question(shape)
    return Group(vlm, [vlm.ask(asked, picture(shape, seed)) for seed in range(1, images + 1)], num_tokens)


def sweep_group_by_engine(task: Group) -> Answers:
    """All images in one prefill, then a visit a target: its own row, and one for each other image and layer."""
    caches = prefill_all(task.vlm, task.prompts)
    logits, ids = [], []
    for n, (prompt, own) in enumerate(zip(task.prompts, caches, strict=True)):
        others = [cache for m, cache in enumerate(caches) if m != n]
        plans = [Plan.own(), *(Plan.swap([k], other) for other in others for k in range(task.vlm.num_layers))]
        start = row_start(task.vlm, prompt, own=own)
        result = sweep(task.vlm, prompt, plans, max_new_tokens=task.num_tokens, start=start)
        logits.append(result.logits)
        ids += result.token_ids
    return Answers(torch.cat(logits), ids)


@torch.no_grad()
def sweep_group_by_prefixes(task: Group) -> Answers:
    """A prefill an image, a batch of plain forwards a pair, and each image's own answer; rows in the same order."""
    model, num_layers, num_images = task.vlm.model, task.vlm.num_layers, len(task.prompts)
    end = task.prompts[0].spans[-1].end
    embedded = [embed(model, prompt) for prompt in task.prompts]
    caches = [prefilled(model, each[:, :end]) for each in embedded]
    asked = [each[:, end:] for each in embedded]
    rows = {(n, n): answered(model, asked[n], _copied(caches[n], 1), task.num_tokens) for n in range(num_images)}
    for n, m in permutations(range(num_images), 2):
        swapped = _copied(caches[n], num_layers)
        for layer_idx, layer in enumerate(swapped.layers):
            layer.keys[layer_idx] = caches[m].layers[layer_idx].keys[0]
            layer.values[layer_idx] = caches[m].layers[layer_idx].values[0]
        rows[n, m] = answered(model, asked[n].expand(num_layers, -1, -1), swapped, task.num_tokens)
    order = [(n, m) for n in range(num_images) for m in (n, *(m for m in range(num_images) if m != n))]
    found = [rows[key] for key in order]
    return Answers(torch.cat([of.logits for of in found]), [ids for of in found for ids in of.token_ids])


def _copied(cache: DynamicCache, rows: int) -> DynamicCache:
    copied = DynamicCache()
    for layer_idx, layer in enumerate(cache.layers):
        copied.update(layer.keys.repeat(rows, 1, 1, 1), layer.values.repeat(rows, 1, 1, 1), layer_idx)
    return copied
