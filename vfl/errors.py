"""The one exception for what a user gave: the command line prints it as one paragraph and exits with 2."""


class InputError(ValueError):
    """Bad input: the message says what was given, what was expected and what to do next."""
