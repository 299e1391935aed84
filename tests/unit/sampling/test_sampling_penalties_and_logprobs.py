"""Penalties as OpenAI and transformers define them; log-probabilities are the model's own."""

import pytest
import torch

from dualpath_api.wire import Sampling
from dualpath_worker.sampling import MAX_LOGPROBS, Row, sample
from dualpath_worker.sampling.penalties import penalised

LOGITS = torch.tensor([2.0, 1.5, -1.0, 0.5, -3.0])


def changed(**fields):
    return penalised(LOGITS, Sampling(max_tokens=1, **fields), prompt=[0, 2], generated=[1, 1, 3]).tolist()


def test_repetition_penalty_sees_prompt_and_generated_tokens_once():
    assert changed(repetition_penalty=2.0) == [1.0, 0.75, -2.0, 0.25, -3.0]


def test_repetition_penalty_agrees_with_transformers():
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    processor = RepetitionPenaltyLogitsProcessor(1.3)
    expected = processor(torch.tensor([[0, 2, 1, 1, 3]]), LOGITS[None])[0].tolist()
    assert changed(repetition_penalty=1.3) == pytest.approx(expected)


def test_presence_and_frequency_count_generated_tokens_only():
    assert changed(presence_penalty=0.5) == [2.0, 1.0, -1.0, 0.0, -3.0]
    assert changed(frequency_penalty=0.5) == [2.0, 0.5, -1.0, 0.0, -3.0]


def test_bias_is_added_and_unknown_ids_are_ignored():
    assert changed(logit_bias={4: 10.0, 99: 5.0, -1: 5.0}) == [2.0, 1.5, -1.0, 0.5, 7.0]


def test_input_is_not_changed():
    before = LOGITS.clone()
    changed(repetition_penalty=2.0, presence_penalty=1.0, logit_bias={0: 1.0})
    assert torch.equal(LOGITS, before)


def test_greedy_is_argmax_after_penalties():
    sampling = Sampling(max_tokens=1, logit_bias={2: 100.0})
    assert sample(LOGITS[None], [Row(sampling=sampling, position=0)])[0].token == 2


def test_nothing_generated_yet():
    row = Row(sampling=Sampling(max_tokens=1, presence_penalty=1.0, frequency_penalty=1.0), position=0)
    assert sample(LOGITS[None], [row])[0].token == 0


def test_logprobs_are_untempered_and_without_penalties():
    sampling = Sampling(max_tokens=1, temperature=3.0, seed=1, logit_bias={4: 100.0}, logprobs=2)
    pick = sample(LOGITS[None], [Row(sampling=sampling, position=0)])[0]
    expected = LOGITS.log_softmax(-1)
    assert pick.token == 4
    assert pick.logprob == pytest.approx(float(expected[4]))
    assert [token for token, _ in pick.top] == [0, 1]
    assert [value for _, value in pick.top] == pytest.approx(expected[:2].tolist())


def test_logprobs_of_zero_alternatives_and_of_more_than_the_vocabulary():
    def pick(count):
        row = Row(sampling=Sampling(max_tokens=1, logprobs=count), position=0)
        return sample(LOGITS[None], [row])[0]

    assert pick(0).top == ()
    assert pick(0).logprob is not None
    assert len(pick(20).top) == 5
    with pytest.raises(ValueError, match=f"at most {MAX_LOGPROBS}"):
        pick(21)


def test_each_row_has_its_own_settings():
    rows = [
        Row(sampling=Sampling(max_tokens=1), position=0),
        Row(sampling=Sampling(max_tokens=1, logit_bias={3: 50.0}), position=0),
        Row(sampling=Sampling(max_tokens=1, temperature=1.0, top_k=1), position=0),
    ]
    assert [pick.token for pick in sample(LOGITS.expand(3, -1), rows)] == [0, 3, 0]
    with pytest.raises(ValueError, match="one row each"):
        sample(LOGITS[None], rows)
