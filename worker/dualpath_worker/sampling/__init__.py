"""From logits to tokens: penalties, filters, keyed random draws, log-probabilities."""

from dualpath_worker.sampling.sampler import MAX_LOGPROBS, Pick, Row, sample

__all__ = ["MAX_LOGPROBS", "Pick", "Row", "sample"]
