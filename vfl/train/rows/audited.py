"""One row, encoded as in training and its loss audited: its lengths, or an InputError that says what is wrong."""

import json
from functools import lru_cache
from typing import Any

from vfl.errors import InputError
from vfl.models.conversation import ConversationEncoder
from vfl.train.preflight.audit import audit_loss, visible
from vfl.train.rows.table import answers_of, conversation
from vfl.train.rows.weights import check_weights

# Tags of media that are not read from rows: to a model they would be plain text about nothing.
MEDIA_TAGS = ("<video>", "<audio>")


def audited(row: dict[str, Any], encoder: ConversationEncoder, *, rejected: bool) -> tuple[int, int]:
    """Tokens of text and of images.

    Raises:
        InputError: for control tokens or media tags in a text, and for a loss that is on other tokens than the answers.
    """
    refuse_control(row["rejected" if rejected else "messages"], encoder)
    batch = encoder.encode([conversation(row, rejected=rejected)], [row["prompt"]])
    try:
        audit_loss(
            encoder.tokenizer,
            batch.inputs["input_ids"],
            batch.answers,
            image_token_ids={encoder.image_token_id},
            end_ids=encoder.end_ids,
            expected=[answers_of(row, rejected=rejected)],
            attention_mask=batch.inputs["attention_mask"],
            where=[row["where"]],
        )
    except InputError as error:  # whoever tells of a bad row names it himself
        raise InputError(str(error).removeprefix(f"{row['where']}: ")) from error
    check_weights(row, batch)
    image = int((batch.inputs["input_ids"] == encoder.image_token_id).sum())
    return int(batch.lengths[0]) - image, image


def refuse_control(messages: str, encoder: ConversationEncoder) -> None:
    """A control token in a text is encoded as the signal that it is: it ends a turn, or begins another."""
    tokens = _control_tokens(encoder.tokenizer)
    for number, message in enumerate(json.loads(messages), 1):
        for entry in message["content"]:
            text = entry.get("text") or ""
            if tag := next((tag for tag in MEDIA_TAGS if tag in text), None):
                raise InputError(
                    f"turn {number} has the tag {tag}, and only images are read from rows: leave it out, or give "
                    "frames as images"
                )
            if token := next((token for token in tokens if token in text), None):
                raise InputError(
                    f"turn {number} has {visible(token)!r} in its text, which is a control token of this model's and "
                    "would be read as one: write it otherwise, or leave it out"
                )


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    # An unknown sign is written so where a text was decoded from tokens; to the model it is one unknown sign again.
    return tuple(sorted((added | set(tokenizer.all_special_tokens)) - {tokenizer.unk_token}))
