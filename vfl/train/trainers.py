"""TRL's trainers with whole checkpoints and adapters that are gathered before they are saved."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, SFTTrainer

from vfl.errors import InputError
from vfl.train.adapter.files import readable
from vfl.train.anchors import AnchoredLoss
from vfl.train.backward.after_image import Shortened
from vfl.train.checkpoints import WholeCheckpoints
from vfl.train.grpo.sampling import SampledAnswers
from vfl.train.layers.freeze import Freezing
from vfl.train.layers.learning_rates import parameter_groups
from vfl.train.nonfinite import FiniteSteps
from vfl.train.packed import PackedLoss
from vfl.train.rows.row_groups import GroupedOrder

logger = logging.getLogger(__name__)


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained tensors by name, on the CPU; gathered where ZeRO-3 spreads them over ranks (all ranks must call)."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with _gathered(list(trained.values())):
        return {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What Transformers and the libraries behind it refuse, as they say it."""
    try:
        yield
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"{what} can't be used with these settings: {' '.join(str(error).split())}. Mend them (lr_scheduler_kwargs "
            "and optim_args hold what it needs besides), install what is missing, or choose another."
        ) from error


def _gathered(parameters: list[torch.nn.Parameter]) -> Any:
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed  # takes seconds

    return deepspeed.zero.GatheredParameters(parameters)


class _Adapted(WholeCheckpoints, FiniteSteps):
    """What all trainers share.

    Args:
        spread: puts model and device together where every process keeps a part of the weights (`fsdp.spread`).

    Attributes:
        rates: learning rates of weights that have one of their own, by name; set before training.
        freezing: which layers are frozen in later steps, and from which on; set before training.
        shortened: in which steps the backward pass ends at the image; set before training.
        order: of rows whose pictures lie in parquet files; set before training.
    """

    rates: Mapping[str, float] = MappingProxyType({})
    freezing: Freezing | None = None
    shortened: Shortened | None = None
    order: GroupedOrder | None = None

    def __init__(self, *args: Any, spread: Callable[[Any, torch.device], None] | None = None, **kwargs: Any) -> None:
        self._spread = spread  # before the model is moved
        super().__init__(*args, **kwargs)

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """As Trainer does, or in pieces."""
        move = self._spread or super()._move_model_to_device  # type: ignore[misc]
        move(model, device)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As TRL's, with a backward pass that ends at the image in the steps that are to."""
        starts = inputs.pop("starts", None)
        if self.shortened is None or starts is None:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        with self.shortened.at(self.state.global_step, starts):  # type: ignore[attr-defined]
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """One group of weights for each learning rate, and for layers that are frozen on the way.

        Raises:
            InputError: for settings, or a missing package, that the optimizer can't be built with.
        """
        name = self.args.optim  # type: ignore[attr-defined]
        with _refused(f"trainer.optim {getattr(name, 'value', name)}"):
            return self._create_optimizer(*args, **kwargs)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer does.

        Raises:
            InputError: for settings that the scheduler can't be built with.
        """
        name = self.args.lr_scheduler_type  # type: ignore[attr-defined]
        with _refused(f"trainer.lr_scheduler_type {getattr(name, 'value', name)}"):
            return super().create_scheduler(*args, **kwargs)  # type: ignore[misc]

    def _create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        freezing = self.freezing
        if (self.rates or freezing) and self.optimizer is None:  # type: ignore[has-type]
            arguments = self.args  # type: ignore[attr-defined]
            kind, options = self.get_optimizer_cls_and_kwargs(arguments, self.model)  # type: ignore[attr-defined]
            groups = parameter_groups(
                self.model,  # type: ignore[attr-defined]
                self.rates,
                arguments.learning_rate,
                arguments.weight_decay,
                below=0 if freezing is None else freezing.layer,
            )
            self.optimizer = kind(groups, **options)
        return super().create_optimizer(*args, **kwargs)  # type: ignore[misc]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As Trainer does, or by row groups."""
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order  # type: ignore[misc]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer does, unless the run resumes behind its last step: in mid-epoch Trainer would take another."""
        if self.order is not None:  # Trainer tells it to some kinds of samplers alone
            self.order.epoch = kwargs["epoch"]
        if self.state.global_step < self.state.max_steps:  # type: ignore[attr-defined]
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]
        else:
            self.control.should_training_stop = True  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Forward and backward pass of one batch, without the layers that are frozen by now."""
        if self.freezing is None:
            return super().training_step(*args, **kwargs)  # type: ignore[misc]
        with self.freezing.at(self.state.global_step, self.model, self.optimizer):  # type: ignore[attr-defined]
            return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapter alone: ZeRO would gather the whole base model, only for the adapter to be picked out of it."""
        unwrapped = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        state = trained_state(unwrapped)
        if self.args.should_save:  # type: ignore[attr-defined]
            folder = output_dir or self.args.output_dir  # type: ignore[attr-defined]
            Path(folder).mkdir(parents=True, exist_ok=True)
            unwrapped.save_pretrained(
                folder, state_dict=state, save_embedding_layers=False, selected_adapters=["default"]
            )
            readable(Path(folder))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The adapter's card is written at the end, with what was measured."""

    def _send_telemetry(self) -> None:
        """TRL reports model and machine to the hub; nothing leaves this one unasked."""


class LayerSFTTrainer(_Adapted, AnchoredLoss, PackedLoss, SFTTrainer):
    """`SFTTrainer` for `vfl train`: a step's loss is the mean over its answer tokens, however they are batched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Trainer counts a step's tokens, over accumulated batches and ranks, only for models whose forward would take
        # the count. Some say they don't (Qwen2.5-VL, Qwen3-VL), but TRL computes the loss outside of the model.
        self.model_accepts_loss_kwargs = True


class LayerDPOTrainer(_Adapted, DPOTrainer):
    """`DPOTrainer` for `vfl train`."""


class LayerKTOTrainer(_Adapted, KTOTrainer):
    """`KTOTrainer` for `vfl train`."""


class LayerGRPOTrainer(_Adapted, SampledAnswers, GRPOTrainer):
    """`GRPOTrainer` for `vfl train`."""


TRAINERS = {"sft": LayerSFTTrainer, "dpo": LayerDPOTrainer, "kto": LayerKTOTrainer, "grpo": LayerGRPOTrainer}
