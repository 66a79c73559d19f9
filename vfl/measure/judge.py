"""A judge of free-form answers: any endpoint with OpenAI's chat completions that the user configures.

The question, the right answer and the model's answer leave the machine, the image does not. Verdicts are kept in a
file, so that a run that goes on does not ask twice, and so that a person can read what the judge decided.
"""

import json
import os
import re
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.measure.config import JudgeConfig

INSTRUCTION = (
    "You compare an answer to a question about an image with the right answer. Reply with one word: yes if the answer "
    "says the same as the right answer, no if it does not or if it says more than one thing."
)
BUSY = (408, 409, 429, 500, 502, 503, 504)
WAIT = 1.0  # seconds before the second try; doubled before each further one


class Judge:
    """Asks the endpoint whether an answer is right, once for each answer."""

    def __init__(self, config: JudgeConfig, kept: Path) -> None:
        """`kept` is the file of verdicts, one JSON object a line; what it holds is not asked again.

        Raises:
            InputError: when the key's environment variable is not set.
        """
        self.config, self.kept = config, kept
        self._headers = {"Content-Type": "application/json"}
        if config.key_variable is not None:
            key = os.environ.get(config.key_variable)
            if not key:
                raise InputError(
                    f"judge.key_variable is {config.key_variable!r}, but that environment variable is not set."
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._verdicts: dict[tuple[str, ...], bool] = {}
        for line in _whole_lines(kept):
            row = json.loads(line)
            self._verdicts[config.model, row["question"], row["expected"], row["answer"]] = row["right"]

    def right(self, question: str, expected: str, answer: str) -> bool:
        """Whether an answer is right; an empty one never is, and is not asked about.

        Raises:
            InputError: when the endpoint can't be reached, refuses, or replies with something else than yes or no.
        """
        if not answer.strip():
            return False
        key = (self.config.model, question, expected, answer)
        if key not in self._verdicts:
            self._verdicts[key] = self._ask(question, expected, answer)
            row = {"question": question, "expected": expected, "answer": answer, "right": self._verdicts[key]}
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            with self.kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return self._verdicts[key]

    def _ask(self, question: str, expected: str, answer: str) -> bool:
        prompt = f"Question: {question}\nRight answer: {expected}\nAnswer: {answer}\nDoes the answer say the same?"
        reply = self._post(
            {
                "model": self.config.model,
                "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": 8,
            }
        )
        try:
            said = reply["choices"][0]["message"]["content"]
            word = re.findall(r"[a-z]+", said.casefold())[:1]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"The judge at {self.config.url} sent no chat completion: {str(reply)[:200]}") from error
        if word not in (["yes"], ["no"]):
            raise InputError(f"The judge {self.config.model!r} replied {said!r}; expected yes or no. Use another.")
        return word == ["yes"]

    def _post(self, body: dict[str, Any]) -> Any:
        address = f"{self.config.url}/chat/completions"
        request = Request(address, json.dumps(body).encode(), self._headers, method="POST")
        for left in reversed(range(self.config.tries)):
            try:
                with urlopen(request, timeout=self.config.timeout) as response:
                    return json.loads(response.read())
            except HTTPError as error:
                problem = f"status {error.code}: {error.read(200).decode(errors='replace')}"
                if error.code not in BUSY:
                    break
            except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
                problem = str(error)
            except ValueError as error:
                raise InputError(f"The judge at {address} sent no JSON ({error}). Check judge.url.") from error
            if left:
                time.sleep(WAIT * 2 ** (self.config.tries - 1 - left))
        raise InputError(f"The judge at {address} can't be asked ({problem}). Check judge.url, or leave the judge out.")


def _whole_lines(path: Path) -> list[str]:
    """The file's lines; one that an interruption cut off is taken out of the file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with replacing(path) as temporary:
            temporary.write_text(whole, encoding="utf-8")
    return whole.split("\n")[:-1]
