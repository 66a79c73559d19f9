"""What the tests of all commands share."""

import sys

import pytest

from vfl.commands import main


@pytest.fixture
def vfl_command(monkeypatch, capfd):
    """Run `vfl ...` in this process: (exit code, output, errors)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vfl", *map(str, arguments)])
        code = 0
        try:
            main.run()
        except SystemExit as leave:
            code = leave.code or 0
        return code, *capfd.readouterr()

    monkeypatch.setenv("COLUMNS", "200")
    return call
