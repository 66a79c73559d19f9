"""A finished sweep to report on, with names and answers that try to be markup."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fake_records import Fake, additive, records, redundant, sharp
from PIL import Image, ImageDraw

from vfl.functionmap import FunctionMap, ModelId
from vfl.locate.layer_rule import ChoiceConfig, window_blocks
from vfl.locate.map_entries import build_entries
from vfl.probes.pair import DrawnPair, Pair, write_suite

L = 12
HOSTILE = "<script>document.title='owned'</script>"
HOSTILE_ANSWER = "5</span><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
HOSTILE_QUESTION = "How many <b>cubes</b>\"' are there & where? " + "w" * 200
PER_FUNCTION = 3


@dataclass
class Finished:
    fmap: FunctionMap
    records: pa.Table
    pairs: list[Pair]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    fakes = {
        "recognition": Fake(additive(0, 4, 0.4), pairs=60, blocks=window_blocks(L)),
        "counting": Fake(sharp(6), lambda a, b: 0.1 if a == 0 else 0.0, accuracy=0.8),
        "grounding": Fake(redundant(8, 9), blocks=window_blocks(L)),
        HOSTILE: Fake(sharp(10), pairs=12, control=False),
        "colour": Fake(lambda a, b: 0.0),
    }
    table = records(fakes, L)
    followed = pc.if_else(pc.equal(table["answer"], "5"), HOSTILE_ANSWER, table["answer"])
    table = table.set_column(table.schema.get_field_index("answer"), "answer", followed)
    fmap = FunctionMap(
        model=ModelId(id=f"owner/{HOSTILE}", weights_sha256="ab" * 32, family="qwen2_5_vl", num_layers=L),
        functions=build_entries(table, L, ChoiceConfig(bootstrap=50)),
        settings={"choice": {"cap": 3}, "reading": "text", "functions": ["ocr", HOSTILE]},
        probes_sha256="cd" * 32,
        versions={"torch": HOSTILE},
    )
    return Finished(fmap, table, _suite(tmp_path_factory.mktemp("suite"), fakes))


def _suite(folder: Path, fakes: dict[str, Fake]) -> list[Pair]:
    """Pictures for the first pairs of each function, under the ids that the records use."""

    def picture(count: int) -> Image.Image:
        image = Image.new("RGB", (96, 64), "white")
        for n in range(count):
            ImageDraw.Draw(image).rectangle((4 + 18 * n, 20, 16 + 18 * n, 40), fill="#3366aa")
        return image

    def drawn(function: str, n: int) -> DrawnPair:
        box = function == "grounding"
        return DrawnPair(
            id=f"{list(fakes).index(function)}-{n}",
            function=function,
            question=HOSTILE_QUESTION,
            answer="[4, 20, 17, 41]" if box else "3",
            source_answer="[40, 20, 53, 41]" if box else "5",
            match="box" if box else "number",
            image=picture(3),
            source_image=picture(5),
        )

    names = list(fakes)
    pairs = write_suite(folder, [drawn(name, n) for name in names for n in range(PER_FUNCTION)])
    return [pair.model_copy(update={"id": f"{pair.function}-{n % PER_FUNCTION:04d}"}) for n, pair in enumerate(pairs)]
