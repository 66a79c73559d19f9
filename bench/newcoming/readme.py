"""The commands of a README: lines of its code blocks, whole blocks of Python, and commands that its text names."""

import re
from dataclasses import dataclass
from typing import Literal

PROGRAMS = ("accelerate", "bash", "deepspeed", "docker", "git", "make", "pip", "python", "torchrun", "uv", "vfl")
"""What a code span in the text begins with to be a command."""
_FENCE = re.compile(r"^ *```(\w*)$")
_SPAN = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r'\s+#\s[^"]*$')


@dataclass(frozen=True)
class Command:
    """`line` is where it begins, from 1; commands of one `block` follow each other in one folder, 0 is the text's."""

    text: str
    kind: Literal["shell", "python", "named"]
    line: int
    block: int = 0


def commands_of(text: str) -> list[Command]:
    """Every command, in the order of the page.

    In a block with prompts ("$ ") the lines without one are output; in one without, every line is a command. A comment
    behind a command is text, whose own code spans count.
    """
    commands: list[Command] = []
    prose = ["" if _FENCE.match(line) else line for line in text.splitlines()]  # what is left without the blocks
    for number, (language, start, lines) in enumerate(_blocks(text), 1):
        for place in range(start, start + len(lines)):
            prose[place] = ""
        if language == "python":
            commands.append(Command("\n".join(lines), "python", start + 1, number))
            continue
        prompts = any(line.startswith("$ ") for line in lines)
        place = 0
        while place < len(lines):
            begins, line = start + place, lines[place]
            while line.endswith("\\") and place + 1 < len(lines):
                place += 1
                line = f"{line[:-1].rstrip()} {lines[place].strip()}"
            place += 1
            if not line.strip() or (prompts and not line.startswith("$ ")):
                continue
            if comment := _COMMENT.search(line):
                prose[begins] = comment[0]
            command = _COMMENT.sub("", line.removeprefix("$ ")).strip()
            if command and not command.startswith("#"):
                commands.append(Command(command, "shell", begins + 1, number))
    return sorted(commands + _named("\n".join(prose)), key=lambda command: command.line)


def _blocks(text: str) -> list[tuple[str, int, list[str]]]:
    """(language, index of the first line, lines) of each block, fenced or indented by four spaces."""
    blocks: list[tuple[str, int, list[str]]] = []
    lines = text.splitlines()
    place = 0
    while place < len(lines):
        if fence := _FENCE.match(lines[place]):
            end = next((n for n in range(place + 1, len(lines)) if lines[n].strip() == "```"), len(lines))
            blocks.append((fence[1], place + 1, lines[place + 1 : end]))
            place = end + 1
        elif lines[place].startswith("    ") and (place == 0 or not lines[place - 1].strip()):
            end = place
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            blocks.append(("", place, [line[4:] for line in lines[place:end]]))
            place = end
        else:
            place += 1
    return blocks


def _named(prose: str) -> list[Command]:
    """Code spans that begin with a program; they may go over the end of a line."""
    spans = [(" ".join(span[1].split()), prose.count("\n", 0, span.start()) + 1) for span in _SPAN.finditer(prose)]
    return [Command(text, "named", line) for text, line in spans if text.split() and text.split()[0] in PROGRAMS]
