"""A corpus of the forms in which models answer: each is read as a person reads it."""

import pytest

from vfl.probes.match import is_thinking, listed_letters, read, same

COUNTS = [("0", "zero", 0), ("1", "one", 1), ("3", "three", 3), ("12", "twelve", 12), ("21", "twenty-one", 21)]
OF_A_COUNT = """
{d}|{w}|{d}.|{W}.|**{d}**|*{w}*|`{d}`|"{d}"|({d})|[{d}]|Answer: {d}|answer: {w}|The answer is {d}.|{d} cups|{w} cups
There are {d} cups.|There are {w} cups in the image.|I count {d} cups.|I can see {w} cups on the table.|Exactly {d}.
Total: {d}|{d} in total|= {d}|\\boxed{{{d}}}|$\\boxed{{{d}}}$|Count: **{d}**|The number of cups is {d}.|Yes, {d} cups.
No, there are {d} cups.|It looks like {w}.|1 row of {d} cups|one row of {w} cups|There is one group of {d} cups.
<think>I see 7, no, 8 of them</think>{d}|<think>~5 or 6?~</think>~~There are {d} cups.|</think>{w}|A total of {d} cups
Only {w}|{d}, I think.|{d}~The cups are red.|{d}!|- {d}|# {d}|no fewer than {d}|The image shows {w} cups.
"""
NONE = """
none|None.|None of them.|no cups|No cups.|There are no cups.|There are no cups in the image.|I see no cups.|nothing
There is nothing on the table.|<think>one?</think>none|No cup is visible.|There aren't any: none
no one|\uff10|zero cups
"""
NO_NUMBER = [
    "many",
    "a few",
    "no idea",
    "several cups",
    "I can't tell",
    "<think>there are 3",
    "<think>1, 2, 3 cups and",
    "unclear",
    "3D",
    "cup",
]
YES = """
yes|Yes|YES|Yes.|yes!|**Yes**|"Yes"|Yes, there is.|Yes, there is a cat.|Answer: yes
The answer is yes.|yeah|Yep.|yup|(yes)
<think>no, or yes? no</think>yes|<think>~No cat?~</think>~~Yes, a cat.|</think>yes
\uff59\uff45\uff53|`yes`|[Yes]|Yes - a cat
I would say yes.|- yes|yes~no doubt about it|Yes: on the left|_yes_|Yes; it is|Yes, no doubt.
\\boxed{yes}|# Yes|Yes\u2014it is
It is: yes|\u201cYes\u201d|Yes, I can see a cat.|Yes (on the sofa)|...yes|Yes, that is right.
yes yes|Oh yes|Certainly, yes.
\u3010Yes\u3011|Yes\uff0cthere is|Yes\uff01|yes/there is one|Yes, indeed|yes please
Final answer: Yes|>yes|<answer>yes</answer>|a: yes
"""
WORDS = """
{w}|{W}|{w}.|"{w}"|'{w}'|**{w}**|`{w}`|The text reads "{w}".|It says {w}|It says: {w}!
The word is {w}.|Answer: {w}|({w})|[{w}]
<think>HOUSE or MOUSE or C?</think>{w}|<think>~MOUSE C++ HOUSE~</think>~~It reads {w}.|The sign shows {w}|{w}~|- {w}
The answer is {w}|I see {w} in the image.|> {w}|_{w}_|\u201c{w}\u201d|\u300c{w}\u300d
"""
LETTERS = ("A", "B", "C", "D")
OF_A_LETTER = r"""
{l}|{l}.|{l})|({l})|[{l}]|**{l}**|"{l}"|`{l}`|{l}: a dog|{l}. a dog|{l}) a dog|({l}) a dog|The answer is {l}.
The answer is ({l}).|the correct answer is {l}|Answer: {l}|answer: ({l})|The answer is: {l}|The correct option is {l}.
Option {l}|option {l}.|The correct answer is option {l}.|The answer is **{l}**.|\boxed{{{l}}}|$\boxed{{{l}}}$|_{l}_
<answer>{l}</answer>|{l}~|~{l}|<think>A or C? D</think>{l}|{l} - a dog|{l}, a dog|{l}.~The dog is black.|- {l}|# {l}
It is a dog ({l}).|Final answer: {l}|{l} is correct.|{l} is the answer|The best choice is {l}.|I choose ({l}).|> {l}
Answer:~{l}|“{l}”|**Answer: {l}**|A is a cat and B is a cow, so the answer is {l}.|**{l}.** a dog
(A) is red, (B) is blue. The answer is ({l}).|A. a cat~B. a dog~C. a cow~Answer: {l}|\text{{{l}}}|{l}.a dog
"""
NO_LETTER = """
It is a cat|It is A cat|A cat|A cat sits on a mat.|a|a cat|a.|I see B in the picture|A or B|A, B|(A) or (B)|both A and B
A. a cat~B. a dog~C. a cow|Bob|ABC|A-frame house|A's|The answer is a dog.|The answer is A dog|E|E.||cat|C++|A&B
the answer is A or B|option a|An apple
"""


def _forms(text: str) -> list[str]:
    """Forms are set off by | and by line breaks; ~ is a line break inside one."""
    return [form.replace("~", "\n") for line in text.strip("\n").split("\n") for form in line.split("|")]


NUMBERS = [(f.format(d=d, w=w, W=w.capitalize()), n) for f in _forms(OF_A_COUNT) for d, w, n in COUNTS]
NUMBERS += [(form, 0) for form in _forms(NONE)]
NUMBERS += [
    ("\uff13", 3),
    ("\uff11\uff12", 12),
    ("2 rows of 3 cups", 6),
    ("two groups of three", 6),
    ("2 rows with 3 each", 6),
]
YESNO = [(form, "yes") for form in _forms(YES)]
NO = """
no|No|NO|No.|no!|**No**|"No"|No, there is not.|No, there is no cat.|Answer: no|The answer is no.
nope|Nah.|(no)|`no`|[No]
<think>yes, or no? yes</think>no|<think>~Yes, a cat?~</think>~~No cat.|</think>no|\uff4e\uff4f
No - a dog|I would say no.
- no|no~yes would be wrong|No: nothing there|_no_|No; it is not|\\boxed{no}|# No|No\u2014it is not
It is: no|\u201cNo\u201d
There is no cat.|I see no cat here.|No (only a dog)|...no|No, that is wrong.|no no|Oh no
Certainly no.|\u3010No\u3011|No\uff0cnone
No\uff01|no/there is none|No, not at all|Final answer: No|>no|<answer>no</answer>|a: no|No, but yes for a dog|no way
"""
YESNO += [(form, "no") for form in _forms(NO)]
TEXTS = [(f.format(w=w, W=w.capitalize()), w) for f in _forms(WORDS) for w in ("HOUSE", "MOUSE", "C++", "C", "C#")]


def test_the_corpus_is_large() -> None:
    assert min(len(set(NUMBERS)), len(set(YESNO)), len(set(TEXTS))) >= 100


@pytest.mark.parametrize("kind", ["number", "yesno"])
def test_numbers_and_yes_and_no(kind) -> None:
    corpus = NUMBERS if kind == "number" else YESNO
    assert [(form, read(kind, form)) for form, value in corpus if read(kind, form) != value] == []


def test_what_holds_no_number_is_not_read_as_one() -> None:
    assert [form for form in NO_NUMBER if read("number", form) is not None] == []


def test_words() -> None:
    candidates = ("HOUSE", "MOUSE", "C++", "C", "C#")
    wrong = [(f, w) for f, w in TEXTS if not same("text", f, w, candidates=candidates)]
    assert wrong == []
    for form, word in TEXTS:
        assert not any(same("text", form, other, candidates=candidates) for other in candidates if other != word)


@pytest.mark.parametrize(
    ("first", "second"), [("C++", "C"), ("A+", "A"), ("-5", "5"), ("C#", "C"), ("F#", "F"), ("1.5", "15")]
)
def test_signs_tell_answers_apart(first: str, second: str) -> None:
    assert same("text", f"{first}.", first)
    assert not same("text", first, second)


def test_compatibility_forms_are_plain_ones() -> None:
    assert same("text", "\uff28\uff2f\uff35\uff33\uff25", "house")
    assert same("number", "\uff13", "3")


@pytest.mark.parametrize("kind", ["text", "number", "yesno", "box", "point"])
def test_an_open_thought_is_no_answer(kind) -> None:
    cut = "<think>yes, 3 at [1, 2, 3, 4]"
    assert is_thinking(cut)
    assert not is_thinking(cut + "</think>3")
    assert read(kind, cut) is None
    assert not same(kind, cut, cut, image_size=(10, 10))


def test_letters_of_choices() -> None:
    """Case-sensitive, where the answer names one, and not inside of prose."""
    forms = [(form.format(l=letter), letter) for form in _forms(OF_A_LETTER) for letter in LETTERS]
    wrong = [(form, letter) for form, letter in forms if not same("letter", form, letter, candidates=LETTERS)]
    assert wrong == []
    for form in _forms(NO_LETTER):
        assert not any(same("letter", form, letter, candidates=LETTERS) for letter in LETTERS), form


def test_a_letter_beside_another_is_not_the_answer() -> None:
    for form in ("R P", "A P", "P P", "It reads A P"):
        assert not same("text", form, "P", candidates=("P", "R")), form
    for form in ("P", "p", 'The text reads "P".', "It is a P"):
        assert same("text", form, "P", candidates=("P", "R")), form


def test_choices_that_a_question_lists() -> None:
    assert listed_letters("Which?\nA. red\nB. blue\nC. green") == ("A", "B", "C")
    assert listed_letters("Which? (A) red (B) blue") == ("A", "B")
    assert listed_letters("Who is A. Smith?") == ()
