"""Errors that a person can act on: what happened, why, and what to do about it.

DualPathError
 +- SpecError       the user's YAML, flag or environment is wrong; exit code 2
 +- UnsupportedError a model, machine or library lacks what is asked; exit code 2
"""

from __future__ import annotations


class DualPathError(Exception):
    """Says what happened, why, and what to do about it."""

    def __init__(self, what: str, *, cause: str, remedy: str) -> None:
        super().__init__(f"{what}\n  cause:  {cause}\n  remedy: {remedy}")
        self.what = what
        self.cause = cause
        self.remedy = remedy


class SpecError(DualPathError):
    """The spec, a flag or an environment variable is not acceptable."""


class UnsupportedError(DualPathError):
    """What is asked is well-formed, but this build, model or machine cannot do it."""
