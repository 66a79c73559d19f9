"""`vfl serve DIR`: a folder of runs in the browser, and a model's answers layer by layer.

vfl serve runs
vfl serve runs --model Qwen/Qwen2.5-VL-3B-Instruct --port 8001
"""

from pathlib import Path
from typing import Annotated

import typer

from vfl.commands.options import ModelOption


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with runs, in it or below.")],
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than 127.0.0.1 let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
) -> None:
    """Show a folder of runs in the browser.

    Reports, training runs and maps side by side, samples filtered, and a page that asks --model about two pictures
    layer by layer, as vfl swap does. Files outside of DIR are not shown, and nothing in it is executed. There is no
    password: at an address that others reach, everybody there can read the runs and use the model.
    """
    from vfl.errors import InputError

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give one that holds runs, such as runs.")
    try:
        import uvicorn

        from vfl.serve.app import app_of
    except ImportError as error:
        raise InputError(f'vfl serve needs {error.name}, which is not installed: pip install "vfl[app]"') from error
    from vfl.loading.beds import EMBEDDED_ID
    from vfl.loading.load import load

    asked = model or EMBEDDED_ID
    # A browser at this machine calls it by either name; elsewhere it may have any.
    hosts = ["127.0.0.1", "localhost", "[::1]"] if host in ("127.0.0.1", "localhost", "::1") else ["*"]
    typer.echo(f"http://{host}:{port} (stop with Ctrl-C)")
    uvicorn.run(app_of(folder, lambda: load(asked), asked, hosts), host=host, port=port, log_level="warning")
