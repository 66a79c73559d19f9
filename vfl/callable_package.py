"""A package that is called like a function: `vfl.locate(...)` beside `vfl.locate.curves`.

Python binds a package's name in its parent when the package is first imported, whichever import that is. A function of
the same name would therefore be there or not depending on what was imported before; a package that can be called is
always both.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of the function of the same name in its module `run`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        return signature(self._function())

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"{self.__name__}.run"), self.__name__.rpartition(".")[2])
        return function


def make_callable(package: str) -> None:
    """Let a package be called; its `__init__` calls this with its own name. Nothing of `run` is imported before."""
    sys.modules[package].__class__ = CallablePackage
