"""A Python that has imported what the library stands on, and forks for each process that a test starts.

A process of its own spends six to ten seconds on importing. A fork of this one begins as `python ARGUMENTS` would: with
an environment, a folder and standard streams of its own, and with nothing of vfl imported. Only torch,
transformers, TRL and their like are there already.

    done = warm.finished(["-m", "vfl.train.launch", "recipe.yaml"])
    done.returncode, done.stdout, done.stderr

It imports when it is first asked, and all processes of the tests ask the same. `python tests/warm.py` alone imports and
ends.
"""

import atexit
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

ADDRESS = "VFL_TESTS_WARM"  # the variable that says where the Python that forks listens
IMPORTED = (
    *("torch", "torchvision", "transformers", "accelerate", "peft", "trl", "deepspeed", "datasets"),
    *("transformers.trainer", "transformers.models.auto.modeling_auto", "transformers.models.auto.processing_auto"),
    *("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.qwen2_5_vl.processing_qwen2_5_vl"),
    *("transformers.models.qwen2_vl.image_processing_qwen2_vl", "transformers.models.qwen2.tokenization_qwen2"),
    *("transformers.models.qwen2_vl.video_processing_qwen2_vl", "transformers.conversion_mapping"),
    *("peft.tuners.lora.bnb", "peft.utils.transformers_weight_conversion"),
    *("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer", "trl.trainer.kto_trainer"),
    *("torch.distributed.run", "torch.distributed.elastic.rendezvous.dynamic_rendezvous"),
    *("torch.utils.data", "scipy.cluster.vq", "matplotlib.backends.backend_agg"),
    *("pyarrow.parquet", "duckdb", "sklearn.cluster", "scipy.stats", "matplotlib.pyplot", "PIL.Image"),
    *("pydantic", "yaml", "typer", "rich.console", "rich.table", "rich.progress", "jinja2", "filelock"),
    *("rich._emoji_codes", "torch.utils.serialization"),
)


class Process:
    """A process that was started: `python ARGUMENTS`, as a fork."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.arguments = list(arguments)
        self._folder = tempfile.TemporaryDirectory()
        self._output, self._errors = (Path(self._folder.name) / name for name in ("output", "errors"))
        self.code: int | None = None
        with (
            open(os.devnull, "rb") as nothing,
            self._output.open("wb") as output,
            self._errors.open("wb") as errors,
        ):
            environment = dict(os.environ if environment is None else environment)
            self.pid = _start(self.arguments, environment, cwd or Path.cwd(), (nothing, output, errors))

    def poll(self, seconds: float = 0) -> int | None:
        """The exit code, negative for a signal; None if it still runs after so many seconds."""
        if self.code is None:
            self.code = _ask(wait=self.pid, seconds=seconds)
        return self.code

    def kill(self) -> None:
        """End it, and all that it started."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.poll(60)

    def finish(self, timeout: float = 1800) -> "subprocess.CompletedProcess[str]":
        """Wait for the end, and have what it printed; it is killed should it ever hang."""
        if self.poll(timeout) is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, None, self._errors.read_bytes())
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (self._output, self._errors)]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.arguments, self.poll() or 0, *texts)


def finished(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    timeout: float = 1800,
) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGUMENTS` to its end; in this process's environment and folder, unless others are given."""
    return Process(arguments, environment, cwd).finish(timeout)


def ranks(
    arguments: Sequence[str], environment: Mapping[str, str], *, number: int = 2, timeout: float = 1800
) -> "list[subprocess.CompletedProcess[str]]":
    """Run `python ARGUMENTS` as the ranks of one group, with the variables that torchrun gives them.

    When a rank fails, the others, which may wait for it, are killed.
    """
    processes = started_ranks(arguments, environment, number=number)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        codes = [process.poll(0.05) for process in processes]
        if None not in codes or any(codes):
            break
    for process in processes:
        process.kill()
    return [process.finish() for process in processes]


def python() -> Path:
    """A program that takes the place of `python` in a command: `PATH ARGUMENTS` is a fork, too."""
    if ADDRESS not in os.environ:
        start()
    return Path(os.environ[ADDRESS]).with_name("python")


def started_ranks(arguments: Sequence[str], environment: Mapping[str, str], *, number: int = 2) -> list[Process]:
    """The processes of `ranks`, which nobody waits for and nobody ends."""
    group = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
    }
    return [
        Process(arguments, {**environment, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(number)
    ]


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@functools.cache
def start() -> "subprocess.Popen[bytes]":
    """Have a Python that forks listen, for this process and all that it starts; it ends with this process."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/warm")
        listening.listen()
        os.environ[ADDRESS] = f"{folder}/warm"
        program = Path(folder) / "python"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -ES "{__file__}" "$0" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        command = [sys.executable, __file__, str(number := listening.fileno())]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, pass_fds=[number])


@functools.cache
def _connection() -> socket.socket:
    if ADDRESS not in os.environ:
        start()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[ADDRESS])
    return connection


def _start(arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, streams: Sequence[BinaryIO]) -> int:
    """Start `python ARGUMENTS` with these standard streams: its process id."""
    pid: int = _ask(streams, arguments=list(arguments), cwd=str(cwd), environment=dict(environment))
    return pid


def _ask(streams: Sequence[BinaryIO] = (), **request: Any) -> Any:
    connection = _connection()
    message = json.dumps(request).encode() + b"\n"
    if streams:
        message = message[socket.send_fds(connection, [message], [stream.fileno() for stream in streams]) :]
    connection.sendall(message)
    return json.loads(_read(connection)[0])


def _read(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A line, empty at the end, and the streams that came with it."""
    line, streams = b"", []
    while not line.endswith(b"\n"):
        part, received, *_ = socket.recv_fds(connection, 1 << 16, 3)
        if not part:
            return b"", streams
        line += part
        streams += received
    return line, streams


# ---- what runs in the Python that forks ----


def accept(listening: socket.socket) -> socket.socket:
    """Fork for each process that connects; in the fork, return its connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # which nobody waits for
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            return connection
        connection.close()
    sys.exit()  # the tests have ended: what still runs ends with those who asked for it


def serve(connection: socket.socket) -> dict[str, Any]:
    """Answer until the other side ends, with what still runs; in a fork, return what it is to run."""
    running = set()
    while (message := _read(connection))[0]:
        request, streams = json.loads(message[0]), message[1]
        if pid := request.get("wait"):
            code = exit_code(pid, request["seconds"], connection)
            if code is not None:
                running.remove(pid)
            with suppress(BrokenPipeError):
                connection.sendall(json.dumps(code).encode() + b"\n")
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            return {**request, "streams": streams}
        for stream in streams:
            os.close(stream)
        os.setpgid(pid, pid)  # a group of its own, before anybody may want to end it
        running.add(pid)
        connection.sendall(json.dumps(pid).encode() + b"\n")
    for pid in running:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    sys.exit()


def exit_code(pid: int, seconds: float, connection: socket.socket) -> int | None:
    """A fork's exit code, or None if it still runs after so many seconds, or when nobody waits for it any longer."""
    end, pause = time.monotonic() + seconds, 0.001
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end or select.select([connection], [], [], pause)[0]:
            return None
        pause = min(2 * pause, 0.1)


def run(arguments: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> None:
    """In a fork: be `python ARGUMENTS`."""
    os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None  # which the environment says
    own_media_folder()
    # A shell that runs the tests in the background has them, and their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *rest = arguments[1:] if arguments[0] == "-u" else arguments
    first = cwd if kind == "-m" else "" if kind == "-c" else str(Path(kind).parent)
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    if kind == "-c":
        code, *rest = rest
        sys.argv[:] = ["-c", *rest]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        name, *rest = rest
        sys.argv[:] = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def own_media_folder() -> None:
    """TRL imports wandb, which makes a folder for its process's files and removes it at the end: each has its own."""
    if wandb := sys.modules.get("wandb.sdk.data_types._private"):
        wandb.MEDIA_TMP._finalizer.detach()
        wandb.MEDIA_TMP.__init__("wandb-media")


def leave(code: object) -> NoReturn:
    """End as Python does after `sys.exit(code)`, but take nothing apart, which takes seconds with all these modules."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


def imported() -> None:
    """Import what all processes have, and hold it fast."""
    for name in IMPORTED:
        with suppress(ImportError):  # an extra that is not installed is a matter of the tests that need it
            importlib.import_module(name)
    if deepspeed := sys.modules.get("deepspeed"):
        # Its own sum over the processes of one machine is compiled where it is first used; gloo's gives the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.utils.nvtx.enable_nvtx = False  # marks for a GPU's profiler, at hundreds of thousands of calls
    if rendezvous := sys.modules.get("torch.distributed.elastic.rendezvous.dynamic_rendezvous"):
        # For its log torchrun looks up, nine times, the source of each function that called another: a second.
        rendezvous.get_method_name = lambda depth=2: "a method"
    # Accelerate asks whether packages are there by reading their metadata, a dozen times in each training run.
    importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)
    first_uses()
    gc.collect()
    gc.freeze()  # a fork that looks for garbage leaves all this alone, and so goes on sharing its memory


def first_uses() -> None:
    """What packages make when they are first used, and then keep: a third of a second in each process."""
    with suppress(ImportError, AttributeError):
        from PIL import Image
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        Image.init()  # its plugins
        get_checkpoint_conversion_mapping("qwen2_5_vl")  # a table of all families' names of weights


def through(arguments: list[str]) -> int:
    """Be `python ARGUMENTS` by a fork: its exit code. The fork ends with this process, should that be killed."""
    pid = _start(arguments, os.environ, Path.cwd(), (sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer))
    while (code := _ask(wait=pid, seconds=1800)) is None:
        pass
    return code if code >= 0 else 128 - code  # as a shell says that it was killed


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(through(sys.argv[2:]))
    # Of Ctrl-C in a terminal: the tests end first, and the input with them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1:]:
        listening = socket.socket(fileno=int(sys.argv[1]))
        if listening not in select.select([listening, sys.stdin], [], [])[0]:
            sys.exit()  # nobody needed it
    imported()
    if sys.argv[1:]:
        try:
            run(**serve(accept(listening)))
        except SystemExit as ended:
            leave(ended.code)
    leave(0)
