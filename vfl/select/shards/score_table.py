"""The score table: one row a sample, every column always there, null where it does not apply.

| column | what |
|---|---|
| `uid`, `position`, `source` | the row's name, its number in the data (from 0), its own source column or file |
| `kind` | `vision` or `text` (no image: no vision score) |
| `text_tokens`, `image_tokens`, `answer_tokens`, `turns`, `images` | lengths; an answer's end token counts |
| `loss`, `perplexity`, `answer_prob` | mean negative log-probability of the answer tokens; exp of it; exp of minus it |
| `el2n` | mean over the answer tokens of the distance between prediction and token (arXiv 2107.07075) |
| `accuracy`, `exact` | share of the answer tokens that are the likeliest; whether all are |
| `no_image_...` | the image hidden at all layers: accuracy, exact, drops of mean log-probability and `answer_prob` |
| `drop_F`, `exact_F`, `logprob_drop_F`, `prob_drop_F` | F's layers ablated: the accuracy's drop, and the same |
| `no_image_js`, `js_F` | Jensen-Shannon divergence, mean over the answer tokens (nats), of what the model predicts |
| `no_image_token_drops` | drop of each answer token's log-probability, the image hidden at all layers, as float16 |
| `token_hash` | of the answers' token ids, whose drops these are; see vfl.data.token_weights |
| `question_state`, `image_state` | last layer's output before the answer, mean over the image, as 16 float16 |
| `question_terms`, `opening`, `answer` | see vfl.select.wording |
| `text_hash`, `image_hash` | see vfl.select.hashes |
| `full_passes` | whole passes that were needed beside the plain one, 0 where the image's stream could be shared |

Drops are before minus after: positive where the ablation hurts. Divergences and states ask for no right answer. What
they and the words add is 64 bytes a row for the states and about 100 for the rest; the tokens' drops add 2 bytes an
answer token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from vfl.data.token_weights import answer_hash
from vfl.engine.teacher_forcing import TeacherForcedScores
from vfl.models.conversation import ConversationBatch

STATE_SIZE = 16
LENGTHS = ("text_tokens", "image_tokens", "answer_tokens", "turns", "images")


def schema(functions: Iterable[str]) -> pa.Schema:
    """The table's columns for these functions."""
    fields = [("uid", pa.string()), ("position", pa.int64()), ("source", pa.string()), ("kind", pa.string())]
    fields += [(name, pa.int32()) for name in LENGTHS]
    fields += [(name, pa.float32()) for name in ("loss", "perplexity", "answer_prob", "el2n", "accuracy")]
    fields += [("exact", pa.bool_()), ("no_image_accuracy", pa.float32()), ("no_image_exact", pa.bool_())]
    fields += [("no_image_logprob_drop", pa.float32()), ("no_image_prob_drop", pa.float32())]
    fields += [("no_image_js", pa.float32()), ("no_image_token_drops", pa.list_(pa.float16()))]
    for name in functions:
        fields += [(f"drop_{name}", pa.float32()), (f"exact_{name}", pa.bool_())]
        fields += [(f"logprob_drop_{name}", pa.float32()), (f"prob_drop_{name}", pa.float32())]
        fields += [(f"js_{name}", pa.float32())]
    fields += [(name, pa.list_(pa.float16(), STATE_SIZE)) for name in ("question_state", "image_state")]
    fields += [("question_terms", pa.list_(pa.uint16())), ("opening", pa.string()), ("answer", pa.string())]
    fields += [(name, pa.string()) for name in ("token_hash", "text_hash", "image_hash")]
    return pa.schema([*fields, ("full_passes", pa.int8())])


ERRORS = pa.schema([("uid", pa.string()), ("position", pa.int64()), ("where", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Part:
    """Scores of some rows of the data in their order, and those that could not be scored."""

    table: pa.Table
    errors: pa.Table


def measures(
    batch: ConversationBatch, image_token_id: int, scores: Sequence[TeacherForcedScores], functions: Sequence[str]
) -> list[dict[str, Any]]:
    """What the score table holds of a batch's rows, but for names and hashes.

    Args:
        batch: B conversations.
        image_token_id: the placeholder of vision tokens.
        scores: scores whose ablations are, one after another, no image and the functions; the first has "own".
        functions: their names.
    """
    own = scores[0]
    logprobs = torch.cat([own.logprobs[:1], *(one.logprobs[1:] for one in scores)]).double()  # (A + 2, N)
    parted = torch.cat([own.divergence[:1], *(one.divergence[1:] for one in scores)]).double()
    hits = torch.cat([own.top1[:1], *(one.top1[1:] for one in scores)]).double()
    size = len(batch.answers)
    count = torch.bincount(own.row, minlength=size).double()
    logprob, accuracy = _row_means(logprobs, own.row, count), _row_means(hits, own.row, count)  # (A + 2, B)
    divergence = _row_means(parted, own.row, count)
    states = _projected(own.states)
    lengths = count.long().tolist()
    drops = [part.numpy().astype(np.float16) for part in (logprobs[0] - logprobs[1]).clamp(-6e4, 6e4).split(lengths)]
    answers = batch.inputs["input_ids"].cpu()[batch.answers.cpu()].split(lengths)
    probability = logprob.exp()
    el2n = _row_means(own.error_l2[None].double(), own.row, count)[0]
    turns = torch.zeros(size, dtype=torch.long).scatter_reduce(0, own.row, own.turn + 1, "amax")
    images = (batch.inputs["input_ids"] == image_token_id).sum(1)
    passes = sum(one.full for one in scores) - 1
    rows = []
    for n in range(size):
        row: dict[str, Any] = {
            "kind": "vision" if images[n] else "text",
            "text_tokens": int(batch.lengths[n] - images[n]),
            "image_tokens": int(images[n]),
            "answer_tokens": int(count[n]),
            "turns": int(turns[n]),
            "loss": float(0 - logprob[0, n]),
            "perplexity": float((0 - logprob[0, n]).exp()),
            "answer_prob": float(probability[0, n]),
            "el2n": float(el2n[n]),
            "accuracy": float(accuracy[0, n]),
            "exact": bool(accuracy[0, n] == 1),
            "full_passes": passes if images[n] else 0,
            "question_state": states[n, 0],
            "token_hash": answer_hash(answers[n].numpy()),
        }
        if images[n]:
            row |= {
                "no_image_accuracy": float(accuracy[1, n]),
                "no_image_exact": bool(accuracy[1, n] == 1),
                "no_image_logprob_drop": float(logprob[0, n] - logprob[1, n]),
                "no_image_prob_drop": float(probability[0, n] - probability[1, n]),
                "no_image_js": float(divergence[1, n]),
                "no_image_token_drops": drops[n],
                "image_state": states[n, 1],
            }
            for place, name in enumerate(functions, start=2):
                row |= {
                    f"drop_{name}": float(accuracy[0, n] - accuracy[place, n]),
                    f"exact_{name}": bool(accuracy[place, n] == 1),
                    f"logprob_drop_{name}": float(logprob[0, n] - logprob[place, n]),
                    f"prob_drop_{name}": float(probability[0, n] - probability[place, n]),
                    f"js_{name}": float(divergence[place, n]),
                }
        rows.append(row)
    return rows


def _row_means(values: torch.Tensor, row: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """(A, N) of answer tokens -> (A, B) means over each row's."""
    return values.new_zeros(len(values), len(count)).index_add(1, row, values) / count


def _projected(states: torch.Tensor) -> np.ndarray:
    """(B, 2, d) -> (B, 2, 16) in float16: random directions, the same for all models of a width."""
    return (states @ _directions(states.shape[-1])).clamp(-6e4, 6e4).numpy().astype(np.float16)


@cache
def _directions(width: int) -> torch.Tensor:
    drawn = np.random.default_rng(0).standard_normal((width, STATE_SIZE)) / width**0.5
    return torch.from_numpy(drawn).float()
