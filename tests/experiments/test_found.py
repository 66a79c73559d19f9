"""What each sign of a wrong answer finds is told apart."""

from fake_scores import row, write_scores

from experiments.selection.found import found


def test_by_the_loss_alone_and_by_the_image_as_well(tmp_path):
    unlikely = {"loss": 9.0, "no_image_logprob_drop": 2.0}  # the model answers this question, but here
    against = {"loss": 9.0, "no_image_logprob_drop": -2.0, "solved": False, "question_terms": [90], "answer": "no"}
    half_read = {"loss": 3.0, "solved": False, "no_image_accuracy": 0.2, "question_terms": [90], "answer": "no"}
    rows = [row(n, loss=0.1, answer="yes") for n in range(60)] + [row(n, **half_read) for n in range(60, 120)]
    rows[3] = row(3, answer="yes", uid="unlikely", **unlikely)
    rows[70] = row(70, uid="against", no_image_accuracy=0.2, **against)
    answered, signs = found(write_scores(tmp_path / "s", rows))
    assert answered == 0.5
    assert signs == [{"unlikely"}, {"unlikely", "against"}]
