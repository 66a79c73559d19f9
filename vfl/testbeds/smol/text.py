"""What is left of the language model's own ability after training on pictures:

    python -m vfl.testbeds.smol.text [--model FOLDER] [--lm FOLDER_OR_ID]

Perplexity of a fixed text (Lincoln's address at Gettysburg and the first lines of Alice in Wonderland) and answers to
a few questions without a picture, by the language model and by the model built from it.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from vfl.errors import InputError
from vfl.loading.beds import SMOL_ID
from vfl.loading.load import resolve
from vfl.testbeds.smol.language import language_model
from vfl.testbeds.smol.processor import CHAT_TEMPLATE, build_tokenizer

TEXTS = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
    "and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, testing "
    "whether that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great "
    "battle-field of that war. We have come to dedicate a portion of that field, as a final resting place for those "
    "who here gave their lives that that nation might live. It is altogether fitting and proper that we should do "
    "this.",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, “and "
    "what is the use of a book,” thought Alice “without pictures or conversations?” So she was considering in her own "
    "mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making "
    "a daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with "
    "pink eyes ran close by her.",
)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "What do bees make?",
    "Write one sentence about the sea.",
)
ANSWER = 24  # tokens at most


@dataclass(frozen=True)
class TextAbility:
    perplexity: float
    answers: tuple[str, ...]


@torch.no_grad()
def text_ability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextAbility:
    """Perplexity a token over TEXTS, and greedy answers to QUESTIONS in the model's own turns."""
    total, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1].float(), ids[0, 1:])
        total, count = total + float(losses) * (ids.shape[1] - 1), count + ids.shape[1] - 1
    answers = []
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(
            turns, chat_template=CHAT_TEMPLATE, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        output = model.generate(**inputs, max_new_tokens=ANSWER, do_sample=False)
        answers.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return TextAbility(float(torch.tensor(total / count).exp()), tuple(answers))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vfl.testbeds.smol.text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="folder of the built model; default: smol")
    parser.add_argument("--lm", help="folder or hub id of the language model; default: the package's")
    options = parser.parse_args()
    try:
        folder, _ = resolve(options.model or SMOL_ID)
        language = language_model(options.lm)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    tokenizer = build_tokenizer(language)
    before = LlamaForCausalLM.from_pretrained(language, dtype=torch.float32).eval()
    before.generation_config.eos_token_id = tokenizer.eos_token_id
    after = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for name, model in (("before", before), ("after", after)):
        ability = text_ability(model, tokenizer)
        print(f"{name}: perplexity {ability.perplexity:.1f}")
        for question, answer in zip(QUESTIONS, ability.answers, strict=True):
            print(f"    {question} {answer}")


if __name__ == "__main__":
    main()
