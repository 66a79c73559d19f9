"""Items asked under a plan: greedy answers, and what the model thinks of given ones.

Hidden layers are run in left-padded batches, as `vfl evaluate` asks; skipped ones a question at a time, as `vfl skip`
does.

Shapes: B rows of a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from vfl.engine.decode import greedy
from vfl.engine.hidden_vision import vision_hidden
from vfl.engine.memory import in_parts
from vfl.engine.skip.running import generate, skipping
from vfl.engine.untouched import untouched
from vfl.evaluate.answers import ids_of, text_of
from vfl.evaluate.batches import Batches, ItemBatch, encode_batch
from vfl.evaluate.items import EvalItem, check_items
from vfl.evaluate.padding import pads_left
from vfl.io.progress import progress_bar
from vfl.lmms_eval.layers import LayerPlan
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

R = TypeVar("R")


@dataclass(frozen=True)
class Scored:
    """What a model thinks of a given answer.

    Attributes:
        logprob: mean log-probability of its tokens, in nats, as `vfl.sweep` scores answers; without the end token.
        greedy: whether each token is the likeliest.
    """

    logprob: float
    greedy: bool


class Planned:
    """A model whose every answer is given under one plan.

    Args:
        vlm: the model; it is left as it was.
        plan: of its layers.
        batch: most questions asked at a time.
    """

    def __init__(self, vlm: VLM, plan: LayerPlan, *, batch: int = 1) -> None:
        self.vlm, self.plan, self.batch = vlm, plan, batch
        with untouched(vlm):
            self.pad = batch > 1 and plan.skip is None and pads_left(vlm)

    def answers(self, items: Sequence[EvalItem], *, progress: bool = False) -> list[str]:
        """The greedy answer to each item, in order.

        Raises:
            InputError: for repeated ids, an image that can't be read, or a prompt that can't skip layers.
        """

        def together(part: ItemBatch) -> list[str]:
            return [text_of(self.vlm, ids) for ids in ids_of(self.vlm, part, self.plan.hidden)]

        def alone(item: EvalItem, encoded: Encoded) -> str:
            ids, _ = generate(self.vlm, encoded, self.plan.skip, max_new_tokens=item.max_new_tokens)
            return text_of(self.vlm, ids)

        return self._asked(items, together, alone, progress)

    def scores(self, items: Sequence[EvalItem], answers: Sequence[str], *, progress: bool = False) -> list[Scored]:
        """What the model thinks of an answer to each item, in order.

        Raises:
            InputError: as `answers`, or for an answer without tokens.
        """
        ids_by_item = {item.id: self.vlm.answer_ids(answer) for item, answer in zip(items, answers, strict=True)}

        def together(part: ItemBatch) -> list[Scored]:
            inputs = {name: value.to(self.vlm.device) for name, value in part.inputs.items()}
            with vision_hidden(self.vlm, inputs["input_ids"], self.plan.hidden):
                return forced(self.vlm, inputs, [ids_by_item[item.id] for item in part.items])

        def alone(item: EvalItem, encoded: Encoded) -> Scored:
            skip = self.plan.skip
            way: AbstractContextManager[DynamicCache | None] = (
                nullcontext() if skip is None else skipping(self.vlm, encoded, skip)
            )
            with way as cache:
                return forced(self.vlm, encoded.inputs, [ids_by_item[item.id]], cache)[0]

        return self._asked(items, together, alone, progress)

    def _asked(
        self,
        items: Sequence[EvalItem],
        together: Callable[[ItemBatch], list[R]],
        alone: Callable[[EvalItem, Encoded], R],
        progress: bool,
    ) -> list[R]:
        """What either way says of each item, in the order of the items; one without a picture has no layer to skip."""
        if not items:
            return []
        check_items(items)
        by_id: dict[str, R] = {}

        def ask(some: Sequence[EvalItem]) -> list[tuple[str, R]]:
            if self.plan.skip is not None and some[0].images:
                (item,) = some
                encoded = self.vlm.encode(item.messages, [opened() for opened in item.images])
                return [(item.id, alone(item, encoded))]
            part = encode_batch(self.vlm, some, pad=self.pad)
            return list(zip((item.id for item in some), together(part), strict=True))

        with untouched(self.vlm):
            groups = Batches(self.vlm, items, self.batch, pad=self.pad, keep_bytes=0).groups
            for group in progress_bar(groups, "answers", unit="batch", disable=not progress, leave=False):
                by_id.update(in_parts(group, len(group), ask, "questions")[0])
        return [by_id[item.id] for item in items]


@torch.no_grad()
def forced(
    vlm: VLM, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]], cache: DynamicCache | None = None
) -> list[Scored]:
    """What the model thinks of an answer to each row, token by token through Transformers' own `generate`.

    That loop places positions and masks as each family needs it, under whatever hooks a plan has put on.

    Args:
        vlm: the model.
        inputs: (B, T) prompts, padded on the left, on the model's device.
        answers: B lists of tokens.
        cache: keys and values to use, of a plan that needs its own.
    """
    length = inputs["input_ids"].shape[1]

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        answer = answers[row]  # a row whose answer has ended repeats its last token, which nobody reads
        return [answer[min(len(ids) - length, len(answer) - 1)]]

    extra: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    with greedy(vlm):
        output: Any = vlm.model.generate(
            **inputs,
            max_new_tokens=max(map(len, answers)),
            do_sample=False,
            use_cache=True,
            output_logits=True,
            return_dict_in_generate=True,
            prefix_allowed_tokens_fn=allowed,
            **extra,
        )
    scored = []
    for row, answer in enumerate(answers):
        logits = torch.stack([step[row] for step in output.logits[: len(answer)]])
        tokens = torch.tensor(list(answer), device=logits.device)  # the logits are float32, whatever the model is
        logprobs = torch.log_softmax(logits, dim=-1).gather(-1, tokens[:, None])
        scored.append(Scored(float(logprobs.mean()), bool((logits.argmax(dim=-1) == tokens).all())))
    return scored
