"""`python -m vfl`: the command, where its script is not on the path."""

from vfl.commands.main import run

if __name__ == "__main__":
    run()
