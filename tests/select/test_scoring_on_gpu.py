"""On a CUDA device: batches come by pinned memory, and the scores are those of the CPU. Run with `-m gpu`."""

from pathlib import Path

import pytest
import score_rows
import torch

from vfl.select.score.run import score
from vfl.select.settings import ScoreConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_scores_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    move = torch.Tensor.pin_memory
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda one, *given: pinned.append(one) or move(one, *given))
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 5))
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        score(
            ScoreConfig(data=(data,), layers=score_rows.LAYERS, out=out, device=device, dtype="float64", batch_size=2),
            progress=False,
        )
    assert pinned
    score_rows.assert_alike(score_rows.table(tmp_path / "cuda"), score_rows.table(tmp_path / "cpu"))
