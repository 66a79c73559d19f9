"""What can be told of a folder's weight files before gigabytes are read."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from vfl.errors import InputError

_POINTER = b"version https://git-lfs"


def check_weight_files(folder: Path) -> None:
    """Refuse a folder whose weights are an adapter's, a pointer to files that were not fetched, cut off, or pickled.

    Raises:
        InputError: names the file and says what to do.
    """
    files = sorted(folder.glob("*.safetensors"))
    weights = [file for file in files if not file.name.startswith("adapter_")]
    if not weights and (folder / "adapter_config.json").is_file():
        raise InputError(
            f"The folder {folder} holds a PEFT adapter beside a config.json, not a full model. Merge it into its base "
            "first (`vfl merge`), or give the folder of the full model."
        )
    if not weights and any(folder.glob("*.bin")):
        raise InputError(
            f"The folder {folder} holds weights as .bin files only. These are pickles, which can run code when they "
            "are read, and are refused on purpose. Save the model as safetensors (save_pretrained does)."
        )
    for file in weights:
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise InputError(f"{file} is a git-LFS pointer, not the weights. Run `git lfs pull` in its folder.")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} can't be read as safetensors ({error}): it is cut off or damaged. Fetch it again."
            ) from error
