"""A made-up preflight of a large model, with texts that try to be markup or to drive a terminal."""

import numpy as np
from transformers import TrainingArguments

from vfl.train.preflight.audit import AuditRow, LossAudit
from vfl.train.preflight.facts import (
    ArmFacts,
    DataFacts,
    MemoryFacts,
    ModelFacts,
    Preflight,
    TowerModules,
    estimate_time,
)
from vfl.train.preflight.lengths import length_histogram
from vfl.train.preflight.processes import launch_facts

HOSTILE = "<script>document.title='owned'</script>"
HOSTILE_ANSWER = f"{HOSTILE}\x1b[31m[bold]three[/bold]|`*"
LAYERS = (*range(10, 18), *range(20, 24))


def preflight() -> Preflight:
    """LoRA in layers 10-17 and 20-23 of a 7B-shaped model, on data with every kind of row."""
    rng = np.random.default_rng(0)
    text, image = rng.integers(20, 400, 3000), np.where(rng.random(3000) < 0.1, 0, rng.integers(100, 1100, 3000))
    args = TrainingArguments(
        output_dir="unused",
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        num_train_epochs=1,
    )
    row = AuditRow(
        where=f"train.json row 17 {HOSTILE}",
        answers=("There are 3 cubes.", HOSTILE_ANSWER),
        prompt_tail="[576 image tokens]How many cubes are there?<|im_end|>\n<|im_start|>assistant\n",
        loss_tokens=8,
        image_tokens=576,
        tokens=612,
        unclosed=0,
    )
    return Preflight(
        method="sft",
        model=ModelFacts(
            id="owner/Model-7B",
            on_hub=True,
            family="qwen2_5_vl",
            num_layers=28,
            dtype="bfloat16",
            attention="sdpa",
            parameters=8_292_166_656,
            bytes=16_584_333_312,
            revision="ab" * 20,
        ),
        arm=ArmFacts(
            arm="function",
            layers=LAYERS,
            functions=("counting", "grounding", HOSTILE),
            map_path="runs/map.json",
            map_sha256="ef" * 32,
            rank=64,
        ),
        adapted=(
            TowerModules(tower="language", modules=84, parameters=69_206_016, bytes=138_412_032, layers=LAYERS),
            TowerModules(tower="vision", modules=0, parameters=0, bytes=0),
        ),
        launch=launch_facts(args, 3000).model_copy(update={"warnings": launch_facts(args, 3).warnings}),
        data=DataFacts(
            rows=3010,
            used=3000,
            bad=7,
            too_long=3,
            text_only=300,
            multi_turn=12,
            multi_image=2,
            files={f"train.json {HOSTILE}": "cd" * 32},
            hub=("owner/data",),
        ),
        checkpointing="Checkpointing off: the activations fit.",
        versions={"torch": "2.15.0", "vfl": HOSTILE},
        audit=LossAudit(rows=(row,) * 4),
        lengths=length_histogram(text.tolist(), image.tolist(), limit=1200),
        memory=MemoryFacts(
            peak_bytes=31 * 2**30,
            device_bytes=80 * 2**30,
            how="torch.cuda.max_memory_allocated",
            rows=2,
            tokens=1480,
        ),
        time=estimate_time(6.5, 188, evaluation_seconds=40, evaluations=5),
    )
