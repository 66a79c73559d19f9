"""What GRPOTrainer leaves open: the order of questions after a resume, and which weights are trained after sampling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from trl.trainer.utils import RepeatSampler

from vfl.errors import InputError
from vfl.train.grpo.arguments import rounds, sampled_together


class QuestionSampler(RepeatSampler):
    """TRL's order of questions, each as often as answers are sampled to it; drawn by the epoch.

    TRL's own draws epoch after epoch from one generator, so that a run resumed in its second epoch would see the first
    one's order again.
    """

    def set_epoch(self, epoch: int) -> None:
        """Trainer says which epoch begins."""
        self.generator.manual_seed(self.seed + epoch)


class SampledAnswers:
    """A mixin for `GRPOTrainer` (named before it among the bases)."""

    def _get_train_sampler(self, dataset: Any = None) -> QuestionSampler:
        args = self.args  # type: ignore[attr-defined]
        return QuestionSampler(
            data_source=self.train_dataset if dataset is None else dataset,  # type: ignore[attr-defined]
            mini_repeat_count=args.num_generations,
            batch_size=sampled_together(args),
            repeat_count=rounds(args),
            seed=args.seed,
        )

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, *others: Any, **inputs: Any
    ) -> Any:
        """As TRL's, with what it gets wrong of some families' inputs put right."""
        # LLaVA-OneVision's processor counts the images of each row, which only matters where there are several.
        if any(count != 1 for count in inputs.pop("batch_num_images", ())):
            raise InputError("TRL's GRPO takes one image a row of this family: leave rows with several out.")
        # Their processors write the first token anew in front of a prompt that has it (Gemma 3): one kind too many.
        for name in ("token_type_ids", "mm_token_type_ids"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name][:, -input_ids.shape[1] :]
        return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
            model, input_ids, attention_mask, *others, **inputs
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with trained_as_before(self.model):  # type: ignore[attr-defined]
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]


@contextmanager
def trained_as_before(model: nn.Module) -> Iterator[None]:
    """PEFT lets all of an adapter be trained after a pass without it; layers that are frozen by now stay so."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
