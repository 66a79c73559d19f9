"""`vfl estimate`: what it says, and what it refuses."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere/at/all",), "No model folder at nowhere/at/all"),
        (("embedded", "--gpu", "h900"), "--gpu is 'h900'"),
        (("embedded", "--work", "sleep"), "--work is 'sleep'"),
        (("embedded", "--set", "metrics=vat"), "did you mean var"),
        (("embedded", "--picture", "large"), "--picture is 'large'"),
        (("embedded", "--train-layers", "5-3"), "5-3"),
    ],
)
def test_bad_input_is_one_paragraph(arguments, said, vfl_command):
    code, _, errors = vfl_command("estimate", *arguments)
    assert code == 2
    assert said in errors
    assert "Traceback" not in errors


def test_the_command_says_that_it_estimates_and_what_it_assumed(vfl_command):
    code, output, errors = vfl_command("estimate", "embedded", "--work", "train", "--steps", "10")
    assert code == 0, errors
    said = " ".join(output.split())
    assert "Estimates, not measurements" in said
    assert "10 steps of 128 rows" in said
