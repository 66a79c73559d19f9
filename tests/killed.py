"""A training run that is killed again and again, in children of one process, and resumed at last.

python killed.py RECIPE OUT MOMENT...

A moment is the number of a write in the run's folder (an opened file, a made, renamed or removed path), before which
the process is killed; or "save:N", to be killed when half of the N-th file of tensors is written. Without moments the
run goes to its end. Prints the number of writes that the last child made.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import vfl.train.adapter.files
from vfl.train.launch import main

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def die() -> None:
    """As by `kill -9`: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def count_writes(out: Path, last: int | None, counter: int) -> None:
    """Count what is written below `out`, and die before write number `last`."""
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        opened = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if not (opened or event in WRITES) or not str(arguments[0]).startswith(str(out)):
            return
        if done == last:
            die()
        done += 1
        os.pwrite(counter, f"{done}\n".encode(), 0)

    sys.addaudithook(hook)


def tear_saves(last: int) -> None:
    """Die when half of the `last`-th file of tensors is written."""
    saved = 0

    def torn(write: Any, where: int) -> Any:
        def save(*arguments: Any, **options: Any) -> Any:
            nonlocal saved
            saved += 1
            result = write(*arguments, **options)
            if saved == last:
                path = Path(arguments[where])
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                die()
            return result

        return save

    torch.save = torn(torch.save, 1)
    safetensors.torch.save_file = vfl.train.adapter.files.save_file = torn(safetensors.torch.save_file, 1)


def child(recipe: str, out: Path, moment: str | None, counter: int) -> int:
    """A run in a process of its own; its exit code, negative for the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        kind, _, number = (moment or "").rpartition(":")
        if kind:
            tear_saves(int(number))
        count_writes(out, int(number) if moment and not kind else None, counter)
        os._exit(main([recipe, *(["--resume"] if (out / "settings.yaml").exists() else [])]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    recipe, out, *moments = sys.argv[1:]
    counter = os.open(f"{out}.writes", os.O_RDWR | os.O_CREAT)
    for moment in moments:
        code = child(recipe, Path(out), moment, counter)
        # A moment may come after the end; then there is nothing to kill.
        assert code in (0, -signal.SIGKILL), f"{moment}: {code}"
        if code == 0:
            print(f"not killed at {moment}")
            break
        for checkpoint in (Path(out) / "checkpoints").glob("checkpoint-*"):
            torch.load(checkpoint / "optimizer.pt", weights_only=True)
            safetensors.torch.load_file(checkpoint / "adapter_model.safetensors")
            assert (checkpoint / "trainer_state.json").read_text().endswith("}\n")
    if not (Path(out) / "report.html").exists():
        assert child(recipe, Path(out), None, counter) == 0
    print("writes", os.pread(counter, 20, 0).decode().split()[0])
