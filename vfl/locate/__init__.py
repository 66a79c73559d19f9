"""From a suite of probe pairs to a function map: records, curves, the choice of layers."""

from vfl.callable_package import make_callable

make_callable(__name__)
