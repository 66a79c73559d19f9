"""Everything that watches a run, added to its trainer in the order in which it has to be told."""

from functools import partial

from vfl.errors import InputError
from vfl.train.assemble import Assembly
from vfl.train.callback.best import BEST, BestStep, TakeBest
from vfl.train.callback.evaluation import METRICS, EvaluationCallback
from vfl.train.callback.heldout import HeldOutLoss
from vfl.train.callback.loss_log import LossLog
from vfl.train.callback.step_time import StepTime
from vfl.train.callback.tracking import sender
from vfl.train.recipe import Recipe
from vfl.train.whole_weights import whole_under_zero3


def watch(recipe: Recipe, parts: Assembly, evaluation: EvaluationCallback | None) -> None:
    """Add what records, measures and judges.

    Raises:
        InputError: when the best step is to be found by something that is not measured, or under ZeRO-3.
    """
    trainer, wanted = parts.trainer, recipe.evaluation
    trainer.add_callback(StepTime(recipe.out / METRICS))
    send = sender(trainer)
    heldout = None
    if parts.heldout is not None:
        heldout = HeldOutLoss(trainer, parts.vlm, parts.heldout.rows, wanted.every, send)
    judge = None
    if wanted.best is not None:
        assert wanted.every is not None
        if parts.zero_stage == 3:
            raise InputError("evaluation.best can't be had under ZeRO-3, which spreads the weights: use zero2.")
        groups = sorted({item.group for item in evaluation.items}) if evaluation else []
        if wanted.best != "loss" and wanted.best not in groups:
            raise InputError(
                f"evaluation.best is {wanted.best!r}, which is not measured; measured are "
                f"{', '.join([*groups, *(['loss'] if heldout else [])]) or 'no groups'}."
            )

        def value() -> float:
            if wanted.best == "loss":
                assert heldout is not None
                return -heldout.loss
            assert evaluation is not None
            return evaluation.accuracies[str(wanted.best)]

        def changed() -> None:
            for measured in (heldout, evaluation):
                if measured is not None:
                    measured.measure_again()

        judge = BestStep(parts.peft_model, recipe.out / BEST, wanted.every, value, wanted.patience)
        trainer.add_callback(TakeBest(judge, changed))
    if evaluation is None:
        trainer.add_callback(LossLog(recipe.out / METRICS))
    else:
        evaluation.send = send
        if parts.zero_stage == 3:
            evaluation.whole = partial(whole_under_zero3, trainer)
        trainer.add_callback(evaluation)
    if heldout is not None:
        trainer.add_callback(heldout)
    if judge is not None:
        trainer.add_callback(judge)
