"""What each method of training reads its rows with, and what it asks of them."""

from typing import Any

from vfl.errors import InputError
from vfl.models.conversation import ConversationEncoder
from vfl.train.grpo.arguments import sampled_together
from vfl.train.grpo.config import GrpoConfig
from vfl.train.grpo.rewards import reward_functions
from vfl.train.recipe import Recipe
from vfl.train.rows.collate import Collator, LabelCollator, PreferenceCollator
from vfl.train.rows.prepared import Prepared


def of_method(recipe: Recipe, encoder: ConversationEncoder, processor: Any, **how: bool) -> dict[str, Any]:
    """What the trainer of the recipe's method reads rows with, and what it is told besides."""
    if recipe.method == "sft":
        return {"processing_class": processor, "data_collator": Collator(encoder, **how)}
    if recipe.method == "dpo":
        return {"processing_class": processor, "data_collator": PreferenceCollator(encoder, **how)}
    if recipe.method == "kto":
        return {"processing_class": processor, "data_collator": LabelCollator(encoder)}
    # It writes its questions itself, and pads them on the side that answers do not grow on.
    processor.tokenizer.padding_side = "left"
    if encoder.template is not None:
        processor.chat_template = encoder.template
    rewards = (recipe.grpo or GrpoConfig()).rewards
    return {"processing_class": processor, "reward_funcs": reward_functions(list(rewards), encoder.family)}


def check_labels(prepared: Prepared, args: Any) -> None:
    """Raise InputError for rows that have nothing to be compared with."""
    good, rows = sum(prepared.rows["label"]), len(prepared.rows)
    if good in (0, rows):
        raise InputError(
            f"All {rows} answers are {'good' if good else 'bad'}, and kto tells good ones from bad ones: add rows of "
            "the other kind" + (", or use method: sft." if good else ".")
        )
    size = args.per_device_train_batch_size
    if size == 1 or (args.world_size == 1 and rows % size == 1 and not args.dataloader_drop_last):
        raise InputError(
            f"{rows} rows in batches of {size} leave a row alone in its batch, and kto measures how far the model has "
            "moved by the answers of the others: take another trainer.per_device_train_batch_size."
        )


def check_questions(prepared: Prepared, args: Any) -> None:
    """Raise InputError for rows that no round of sampled answers can be made of."""
    together, rows = sampled_together(args), len(prepared.rows)
    if rows < together:
        raise InputError(
            f"Answers to {together} questions are sampled at a time, and the data has {rows} rows: take a smaller "
            "trainer.per_device_train_batch_size or trainer.gradient_accumulation_steps, or a larger "
            "grpo.num_generations."
        )
    blind = prepared.image.count(0)
    if 0 < blind < rows:
        raise InputError(
            f"{blind} of {rows} rows have no image, and TRL's GRPO takes batches with images or without, not mixed "
            "ones: leave these rows out, or train on them alone."
        )
