"""Whether a model answers a left-padded batch as it answers each row alone."""

import logging

import torch

from vfl.engine.decode import greedy
from vfl.evaluate.batches import ItemBatch, encode_batch
from vfl.evaluate.items import EvalItem
from vfl.loading.checks import tolerance
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)
QUESTIONS = ("How many?", "What is to be seen in this image, and where in it does it stand?")


def pads_left(vlm: VLM) -> bool:
    """Ask two questions of unequal length together and the padded one alone: the logits of two steps must be equal.

    False, with a warning, where they are not or where the tokenizer has no pad token: then rows must be asked one by
    one.
    """
    if vlm.tokenizer.pad_token_id is None:
        return _refuse(vlm, "its tokenizer has no pad token")
    items = [_item(vlm, question) for question in QUESTIONS]
    together = _logits(vlm, encode_batch(vlm, items))[:1]
    alone = _logits(vlm, encode_batch(vlm, items[:1], pad=False))
    if together.shape[1] == alone.shape[1] and bool((together - alone).abs().max() <= tolerance(vlm, alone)):
        return True
    return _refuse(vlm, "padded to the left it gives other logits")


def _item(vlm: VLM, question: str) -> EvalItem:
    content = [{"type": vlm.medium.name}, {"type": "text", "text": question}]
    messages = ({"role": "user", "content": content},)
    return EvalItem(question, "padding", messages, (vlm.medium.noise,), "", "exact", 2)


def _logits(vlm: VLM, batch: ItemBatch) -> torch.Tensor:
    """(B, 2, vocabulary) logits of the first two steps, the second after the same token in every row."""
    inputs = {name: value.to(vlm.device) for name, value in batch.inputs.items()}
    forced = vlm.answer_ids("many")[-1:]
    with greedy(vlm):
        output = vlm.model.generate(
            **inputs,
            max_new_tokens=2,
            do_sample=False,
            use_cache=True,
            output_logits=True,
            return_dict_in_generate=True,
            prefix_allowed_tokens_fn=lambda row, ids: forced,
        )
    return torch.stack(output.logits, dim=1).double().cpu()


def _refuse(vlm: VLM, reason: str) -> bool:
    note = f"questions are asked one by one, not in batches: {reason}"
    if note not in vlm.notes:
        vlm.notes.append(note)
        logger.warning("%s: %s", vlm.model_id, note)
    return False
