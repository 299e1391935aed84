"""Decisions only: pure functions over frozen dataclasses; no I/O, clock, log or random inside."""
