"""What GRPOTrainer leaves open: the order of questions after a resume, and which weights are trained after sampling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from trl.trainer.utils import RepeatSampler

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
