"""The table of "Your 7B": what the works cost on cards of three sizes, by `vfl estimate`'s own cost model."""

from functools import cache

from transformers import Qwen2_5_VLConfig

from vfl.estimate.cards import CARDS, CardName
from vfl.estimate.config import WORKS, EstimateConfig, Work
from vfl.estimate.cost import UTILISATION
from vfl.estimate.run import estimate, shape_of_model
from vfl.estimate.tables import spread
from vfl.io.durations import duration
from vfl.io.sizes import size_text
from vfl.models.shape import Shape
from vfl.train.export.meta_model import meta_model_of

NAME = "Qwen/Qwen2.5-VL-7B-Instruct"
# What its config.json says, as far as it is not the class's default.
TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
PLACES: tuple[tuple[CardName, int], ...] = (("rtx4090", 1), ("l40s", 1), ("a100", 1), ("a100", 8))
CHANGES: dict[Work, str] = {"train": " --checkpointing"}
"""What the table changes of a work's defaults, as it is written on the command line."""


@cache
def shape() -> Shape:
    """The sizes of the 7B model, from its config."""
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False)
    return shape_of_model(meta_model_of(config))


def table() -> str:
    """A row for each work and place, with the command that prints it; below, what was assumed."""
    rows = ["| work | on | memory a card | fits | time | disk |", "|---|---|---|---|---|---|"]
    notes = []
    for work in WORKS:
        for card, count in PLACES:
            settings = EstimateConfig(
                model=NAME, work=work, gpu=card, gpus=count, checkpointing=work in CHANGES, picture=(1024, 768)
            )
            (each,) = estimate(settings, shape())
            fits = "yes" if each.fits else f"no; {' or '.join(each.remedies)}"
            rows.append(
                f"| {work} | {count} x {CARDS[card].title} | {size_text(each.cost.bytes)} | {fits} | "
                f"{spread(*map(duration, each.seconds))} | {size_text(sum(each.cost.disk.values()))} |"
            )
        assumed = "; ".join(each.cost.assumed[:2])
        notes.append(f"- `vfl estimate {NAME} --work {work} --picture 1024x768{CHANGES.get(work, '')}`: {assumed}.")
    low, high = UTILISATION
    sources = {CARDS[card].title: CARDS[card].source for card, _ in PLACES}
    said = "; ".join(f"{title}: {source}" for title, source in sources.items())
    return "\n".join([
        *rows,
        "",
        f"Estimates from the config, {shape().parameters / 1e9:.2f} billion parameters in bfloat16; nothing here was "
        f"measured on a GPU. Times are for {low:.0%} to {high:.0%} of the cards' peak ({said}), and from the least "
        "to the most that a work may have to do.",
        "",
        *notes,
    ])  # fmt: skip
