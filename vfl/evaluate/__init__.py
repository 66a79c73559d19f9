"""Answers of a model on held-out probes and on a user's own questions: accuracy per group, and paired differences."""

from vfl.callable_package import make_callable

make_callable(__name__)
