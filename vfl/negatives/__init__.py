"""Preference rows whose rejected answers come from the model with the image hidden at some layers."""

from vfl.callable_package import make_callable

make_callable(__name__)
