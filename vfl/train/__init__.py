"""Layer-targeted training: from a recipe to an adapter that was loaded back. Start with run.py."""

from vfl.callable_package import make_callable

make_callable(__name__)
