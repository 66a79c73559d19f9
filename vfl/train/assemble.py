"""A recipe's parts put together: model, layers, rows and trainer, with nothing trained yet."""

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import LoraConfig, PeftModel

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.loading.load import describe, read_pretrained
from vfl.models.conversation import ConversationEncoder
from vfl.models.pixel_limits import limits_of, take_over
from vfl.models.precision import DTYPES, dtype_of
from vfl.models.system_turn import check_system
from vfl.models.vlm import VLM
from vfl.train.adapter.continued import continued_lora, refuse_as_model, with_weights
from vfl.train.adapter.lora import DEFAULTS, build_lora
from vfl.train.anchors import Anchors
from vfl.train.arguments import trainer_arguments
from vfl.train.backward.after_image import Shortened
from vfl.train.choose_layers import LayerDecision, decide
from vfl.train.export.meta_model import identify_model
from vfl.train.field_values import checked
from vfl.train.fsdp import check_fsdp, spread
from vfl.train.layers.choice import chosen_layers
from vfl.train.layers.freeze import Freezing, check_freezing
from vfl.train.layers.learning_rates import own_rates
from vfl.train.layers.modules import with_modules
from vfl.train.layers.protect import Protection, protection_of, spared
from vfl.train.layers.rules import check_count
from vfl.train.layers.thin import thinned
from vfl.train.methods import check_labels, check_questions, of_method
from vfl.train.packed import Packing
from vfl.train.preflight.processes import LaunchFacts, launch_facts
from vfl.train.read_rows import heldout_rows, training_rows
from vfl.train.recipe import Recipe
from vfl.train.rows.packs import Packs
from vfl.train.rows.prepare import check_paths
from vfl.train.rows.prepared import Prepared, in_order, shuffled
from vfl.train.rows.questions import QuestionCollator, check_encoder
from vfl.train.rows.row_groups import GroupedOrder, row_groups
from vfl.train.rows.table import ANCHOR
from vfl.train.rows.weights import warn_of_unused
from vfl.train.trainers import TRAINERS
from vfl.train.try_packing import check_packing, packs_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembly:
    """What a run consists of.

    Attributes:
        vlm: the base model with the adapter injected, its processor and parts.
        model_id: what maps and presets are compared with.
        layers: the decoder layers that are trained, ascending.
        decision: how a rule chose them by the training rows; None where they were named.
        protection: what is spared for other functions.
        lora: the PEFT configuration.
        prepared: the training rows.
        trainer: a TRL trainer; its `model` is the PEFT model.
        zero_stage: DeepSpeed's ZeRO stage, 0 without.
        packs: the training rows in packs; None where each is a sequence by itself.
        heldout: rows whose loss is measured.
        order: of the training rows, where their pictures are read from parquet files.
    """

    vlm: VLM
    model_id: ModelId
    layers: list[int]
    lora: LoraConfig
    prepared: Prepared
    trainer: Any
    zero_stage: int
    packs: Packs | None = None
    decision: LayerDecision | None = None
    protection: Protection | None = None
    heldout: Prepared | None = None
    order: GroupedOrder | None = None

    @property
    def peft_model(self) -> PeftModel:
        """The model with its adapter."""
        return self.trainer.model


def assemble(recipe: Recipe, *, progress: bool = True, readers: int | None = None) -> Assembly:
    """Load the model, choose the layers, read the data, build the trainer.

    What is wrong with the recipe is found before weights and data are read, as far as it can be.

    Args:
        recipe: validated.
        progress: show bars.
        readers: with `data.streaming`, the reading processes that the order of rows is for; default: this run's.

    Raises:
        InputError: for anything in the recipe, the data or the model that can't be used.
    """
    checked("lora", LoraConfig, recipe.lora)
    refuse_as_model(recipe.model)
    template = _template(recipe.chat_template)
    check_paths(recipe.data)
    choice = recipe.layers
    fmap = FunctionMap.load(choice.map) if choice.map and choice.arm != "full" else None
    dtype = dtype_of(recipe.dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    # Before the model: under ZeRO-3 Transformers then spreads the weights over the ranks as it reads them.
    args = trainer_arguments(recipe, dtype)
    if args.process_index == 0:
        warn_of_unused(recipe.data)
    stage = _zero_stage(args)
    if recipe.fsdp:
        check_fsdp(recipe, args.world_size)
    if recipe.packing:
        check_packing(recipe, args, stage)
    short = recipe.backward is not None
    if stage == 3 and short:
        raise InputError(
            "backward: after_image runs the layers twice a step, and under ZeRO-3 that is not supported: use "
            "deepspeed: zero2, or set backward: whole."
        )
    if stage == 3 and recipe.adapter is not None:
        raise InputError("An adapter can't be trained further under ZeRO-3, which spreads it: use deepspeed: zero2.")
    if stage == 3 and recipe.method == "grpo":
        raise InputError("grpo samples answers from whole weights, and ZeRO-3 spreads them: use deepspeed: zero2.")
    model, processor, name = read_pretrained(
        recipe.model,
        dtype=_name_of(dtype),
        device=str(args.device),
        device_map={"": str(args.device)} if recipe.quantize else None,
        quantize=recipe.quantize,
        attn_implementation=recipe.attn_implementation,
        revision=recipe.revision,
        **_limits(recipe),
        trust_remote_code=recipe.trust_remote_code,
        place=stage != 3 and not recipe.fsdp,  # what spreads the weights places their parts itself
    )
    vlm = describe(model, processor, model_id=name, chat_template=template)
    if recipe.adapter is not None and (
        other := take_over(processor, vlm.family.name, recipe.adapter, **_limits(recipe))
    ):
        logger.warning("%s", other)
    identity = identify_model(model, hashed=fmap is not None or bool(recipe.protect and recipe.protect.map))
    if limits := limits_of(processor):
        identity = identity.model_copy(update=limits._asdict())
    protection = protection_of(recipe.protect, identity, choice.functions)
    options = with_modules(recipe.lora, choice.modules, vlm)
    if recipe.method == "grpo":
        options = {**options, "lora_dropout": 0.0}  # what is sampled is what is trained
    if choice.rule == "auto":
        options = thinned(options, DEFAULTS["r"], choice.share)
    if choice.by_data:
        _check_rule(
            recipe, identity, options, vlm, spread_by="ZeRO-3" if stage == 3 else "fsdp" if recipe.fsdp else None
        )
    else:  # before the data is read: a wrong choice is said at once
        layers = spared(chosen_layers(choice, identity, fmap), protection)
        _check_freeze(recipe, layers, vlm)
        if recipe.adapter is None:
            lora = build_lora(model, layers, options, recipe.also_adapt, match_rank=recipe.match_rank)
        else:
            lora = continued_lora(model, recipe.adapter, layers, recipe.also_adapt)
    encoder = ConversationEncoder(processor, vlm.family, vlm.parts.image_token_id, vlm.end_ids(), template, dtype=dtype)
    if recipe.data.system_prompt is not None:
        check_system(processor, template)
    if recipe.method == "grpo":
        check_encoder(encoder)
    prepared = training_rows(recipe, vlm, encoder, args, progress)
    heldout = heldout_rows(recipe, encoder, args, progress) if recipe.evaluation.heldout else None
    packs = packs_of(recipe, vlm, encoder, prepared) if recipe.packing else None
    launch = launch_facts(args, len(prepared.rows), len(packs or ()))
    decision = None
    if choice.by_data:
        decision = _decided(recipe, vlm, identity, prepared, encoder, args, launch, options, protection)
        layers = list(decision.layers)
        _check_freeze(recipe, layers, vlm)
        lora = build_lora(model, layers, options, recipe.also_adapt, match_rank=recipe.match_rank)
    blind = prepared.image.count(0)  # old rows too
    mixed = blind > 0 and stage == 3
    if mixed and recipe.method in ("dpo", "kto"):
        raise InputError(
            f"{blind} rows have no image, and under ZeRO-3 a batch without one would leave the "
            "ranks waiting for each other. Use deepspeed: zero2, or leave these rows out."
        )
    if recipe.method == "grpo":
        check_questions(prepared, args)
    if recipe.method == "kto":
        check_labels(prepared, args)
        # TRL reads them in one order, epoch after epoch.
        order = _order(recipe, prepared, args, readers)
        prepared = shuffled(prepared, recipe.seed) if order is None else in_order(prepared, order.order())
        # By this column it takes rows for pairs.
        prepared = replace(prepared, rows=prepared.rows.remove_columns("rejected"))
    if mixed:
        logger.info("ZeRO-3 with rows without images: batches without any show a blank one, outside the loss")
    try:
        trainer: Any = TRAINERS[recipe.method](
            model=model if recipe.adapter is None else with_weights(model, recipe.adapter),
            args=args,
            train_dataset=prepared.rows,
            peft_config=lora if recipe.adapter is None else None,
            **of_method(recipe, encoder, processor, show_always=mixed, starts=short),
            **({"spread": partial(_spread, vlm)} if recipe.fsdp else {}),
        )
    except (ValueError, NotImplementedError, ImportError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(f"TRL or PEFT refuses these settings: {' '.join(str(error).split())}") from error
    if recipe.method == "grpo":
        trainer.data_collator = QuestionCollator(encoder)  # GRPOTrainer takes none
    for name, parameter in trainer.model.named_parameters():
        if ".ref." in name:  # the copy of the adapter that preferences are measured from
            parameter.requires_grad = False
    trainer.on_nan = recipe.on_nan
    if recipe.deepspeed and not trainer.is_deepspeed_enabled:
        raise InputError(
            f"deepspeed={recipe.deepspeed!r} was asked for, but accelerate has not taken it up. Look for ACCELERATE_ "
            "variables in the environment, and start with torchrun, deepspeed or accelerate launch."
        )
    multipliers = {} if protection is None else protection.multipliers
    if multipliers or recipe.learning_rates:
        trainer.rates = own_rates(
            trainer.model, vlm.model, vlm.parts, args.learning_rate, multipliers, recipe.learning_rates
        )
    if recipe.protect is not None and recipe.protect.how == "kl":
        trainer.anchors = Anchors(vlm, prepared.rows, recipe.protect.beta)
    if recipe.freeze is not None:
        trainer.freezing = Freezing.of(recipe.freeze, vlm.num_layers, launch.total_steps)
    if packs is not None:
        trainer.packs, trainer.packing = packs, Packing(vlm, encoder.pad)
    if recipe.backward is not None:
        trainer.shortened = Shortened(vlm.parts.decoder, recipe.backward.whole_every)
    if recipe.method != "kto":
        trainer.order = order = _order(recipe, prepared, args, readers)
    return Assembly(vlm, identity, layers, lora, prepared, trainer, stage, packs, decision, protection, heldout, order)


def _order(recipe: Recipe, prepared: Prepared, args: Any, readers: int | None) -> GroupedOrder | None:
    """An order by row groups, where there is to be one."""
    # Under KTO TRL's trainer reads rows as they lie whatever is asked for, and they are laid in this order.
    as_they_lie = recipe.trainer.get("train_sampling_strategy") == "sequential" and recipe.method != "kto"
    if not recipe.data.streaming or as_they_lie:
        return None
    seed = recipe.seed if args.data_seed is None else args.data_seed
    own = args.world_size * max(args.dataloader_num_workers, 1)
    return GroupedOrder(row_groups(prepared.rows), args.train_batch_size, readers or own, seed)


def _spread(vlm: VLM, model: Any, device: torch.device) -> None:
    spread(model, vlm.parts.decoder, vlm.layers, device)


def _limits(recipe: Recipe) -> dict[str, int | None]:
    return {"min_pixels": recipe.min_pixels, "max_pixels": recipe.max_pixels}


def _check_freeze(recipe: Recipe, layers: list[int], vlm: VLM) -> None:
    if recipe.freeze is not None:
        check_freezing(recipe.freeze, layers, vlm.num_layers)


def _check_rule(recipe: Recipe, model: ModelId, options: dict[str, Any], vlm: VLM, *, spread_by: str | None) -> None:
    """What is wrong with a rule, before the data is read for it."""
    check_count(recipe.layers.number(model.num_layers), model.num_layers)
    build_lora(vlm.model, range(model.num_layers), options, recipe.also_adapt)
    if spread_by is not None:
        raise InputError(
            f"layers.rule {recipe.layers.rule} scores whole layers, and under {spread_by} they are spread over the "
            "ranks. Score them with `vfl layers` first and write the list, or use deepspeed: zero2."
        )


def _decided(
    recipe: Recipe,
    vlm: VLM,
    model: ModelId,
    prepared: Prepared,
    encoder: ConversationEncoder,
    args: Any,
    launch: LaunchFacts,
    options: dict[str, Any],
    protection: Protection | None,
) -> LayerDecision:
    """The first process' choice, by its own rows, for all: rounding must not part the ranks."""
    decision = None
    rows_a_pack = round(launch.rows / launch.packs) if launch.packs else 1
    if args.process_index == 0:
        new = prepared.rows.select(range(prepared.facts.new))  # old rows ask for no change
        new = new.remove_columns([name for name in (ANCHOR,) if name in new.column_names])
        decision = decide(
            recipe.layers,
            vlm,
            model,
            new,
            encoder,
            recipe.out,
            lora=options,
            steps=launch.total_steps,
            learning_rate=args.learning_rate,
            batch=args.per_device_train_batch_size * rows_a_pack,
            seed=recipe.seed,
            barred=protection.barred if protection else (),
        )
    chosen: LayerDecision = gather_object([decision])[0]
    logger.info("%s", chosen.reason)
    return chosen


def _name_of(dtype: torch.dtype) -> str:
    return next(name for name, known in DTYPES.items() if known is dtype)


def _zero_stage(args: Any) -> int:
    plugin = args.deepspeed_plugin
    return 0 if plugin is None else int(plugin.zero_stage)


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"The chat template {path} can't be read: {error.strerror}.") from error


# Tokenizers warn, and stop being parallel, when data loader workers are forked after their first use.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
