"""What one request may ask for; larger values are refused with 400 and these figures."""

from __future__ import annotations

MAX_CHOICES = 16
MAX_PROMPTS = 64
MAX_ANSWERS = 128  # prompts x choices
MAX_STOPS = 4
MAX_STOP_CHARS = 1024
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_MESSAGES = 10_000
MAX_TOOLS = 1024
