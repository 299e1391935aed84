"""The compute quota."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_policy import AttentionTime, Chunk, ReadyRequest, next_batch

LINEAR = AttentionTime(a0=0.0, a1=1.0, a2=0.0, a3=0.0)  # one second a new token


def ready(*shapes):
    return [ReadyRequest(request=str(i), cached=c, remaining=r) for i, (c, r) in enumerate(shapes)]


def tokens(chunks):
    return [(chunk.request, chunk.tokens) for chunk in chunks]


def test_what_fits_is_batched_first_come_first_served():
    assert next_batch(ready((0, 3), (9, 4)), 10, 100, LINEAR) == [
        Chunk(request="0", tokens=3),
        Chunk(request="1", tokens=4),
    ]


def test_the_request_that_exceeds_the_quota_is_cut():
    assert tokens(next_batch(ready((0, 3), (0, 40), (0, 1)), 10, 100, LINEAR)) == [("0", 3), ("1", 7)]


def test_the_token_limit_cuts_too():
    assert tokens(next_batch(ready((0, 3), (0, 40), (0, 1)), 1000, 5, LINEAR)) == [("0", 3), ("1", 2)]
    assert tokens(next_batch(ready((0, 5), (0, 40)), 1000, 5, LINEAR)) == [("0", 5)]


def test_the_head_always_makes_progress():
    assert tokens(next_batch(ready((10**6, 5), (0, 1)), 0.5, 100, LINEAR)) == [("0", 1)]
    assert tokens(next_batch(ready((0, 5)), 10, 0, LINEAR)) == [("0", 1)]


def test_nothing_ready_gives_no_batch():
    assert next_batch([], 1, 1, LINEAR) == []
    assert tokens(next_batch(ready((0, 0), (0, 2)), 10, 10, LINEAR)) == [("1", 2)]
    assert LINEAR.predict([]) == 0


def test_a_request_without_room_for_one_token_waits():
    assert tokens(next_batch(ready((0, 10), (0, 5)), 10, 100, LINEAR)) == [("0", 10)]


def test_the_fit_needs_a_sample():
    with pytest.raises(ValueError, match="no sample"):
        AttentionTime.fit([([], 1.0), ([(0, 1)], 0.0)])


def test_the_fit_finds_the_model_that_made_the_samples():
    truth = AttentionTime(a0=1e-3, a1=2e-6, a2=0.0, a3=3e-9)
    batches = [[(c, q)] for c in (0, 500, 4000) for q in (1, 64, 700)] + [[(100, 50), (2000, 8)]]
    fitted = AttentionTime.fit([(batch, truth.predict(batch)) for batch in batches])
    for batch in [*batches, [(9000, 300)]]:
        assert fitted.predict(batch) == pytest.approx(truth.predict(batch), rel=1e-6)


def test_a_falling_time_still_gives_coefficients_that_are_not_negative():
    fitted = AttentionTime.fit([([(0, 1)], 5.0), ([(0, 10)], 4.0), ([(0, 100)], 1.0)])
    assert min(fitted.a0, fitted.a1, fitted.a2, fitted.a3) >= 0
    assert fitted.predict([(0, 1)]) > 0


shapes = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2000)), max_size=8)
rates = st.floats(0, 1e-3)
models = st.builds(AttentionTime, rates, rates, rates, st.floats(0, 1e-6))


@given(shapes, st.floats(0, 2), st.integers(1, 3000), models)
def test_a_batch_stays_within_the_quota_and_is_the_largest_that_does(given_shapes, quota, most, model):
    queue = ready(*given_shapes)
    chunks = next_batch(queue, quota, most, model)
    by_name = {item.request: item for item in queue}
    batch = [(by_name[chunk.request].cached, chunk.tokens) for chunk in chunks]
    assert sum(chunk.tokens for chunk in chunks) <= most
    assert [c.request for c in chunks] == sorted(c.request for c in chunks), "FIFO"
    assert all(1 <= c.tokens <= by_name[c.request].remaining for c in chunks)
    assert bool(chunks) == any(item.remaining for item in queue)
    assert model.predict(batch) <= quota or (len(batch) == 1 and batch[0][1] == 1)
    if chunks:
        (cached, last), left = batch[-1], most - sum(q for _, q in batch)
        if last < by_name[chunks[-1].request].remaining and left > 0:
            assert model.predict([*batch[:-1], (cached, last + 1)]) > quota


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 2000)), min_size=1, max_size=4),
            st.floats(1e-4, 10),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 500),
)
def test_any_fit_is_monotone(samples, more):
    fitted = AttentionTime.fit(samples)
    for batch, _ in samples:
        (cached, new), *rest = batch
        assert fitted.predict(batch) <= fitted.predict([(cached, new + more), *rest])
        assert fitted.predict(batch) <= fitted.predict([(cached + more, new), *rest])


def test_a_context_beyond_the_quota_goes_on_in_chunks_of_the_least_size():
    slow = AttentionTime(a0=1.0)
    ready = [ReadyRequest(request="long", cached=3000, remaining=400)]
    assert next_batch(ready, 0.3, 4096, slow, least=64) == [Chunk(request="long", tokens=64)]
    assert next_batch(ready, 0.3, 24, slow, least=64) == [Chunk(request="long", tokens=24)]


@given(
    st.floats(1e-6, 1e3),
    st.floats(1e-6, 1e3),
)
def test_a_correction_moves_towards_what_was_measured(predicted: float, measured: float):
    model = AttentionTime(a0=predicted)
    after = model.corrected(predicted, measured).predict([(0, 1)])
    assert min(predicted, measured) * (1 - 1e-9) <= after <= max(predicted, measured) * (1 + 1e-9)


def test_nothing_measured_corrects_nothing():
    model = AttentionTime(a0=1.0, a1=2.0)
    assert model.corrected(1.0, 0.0) == model
    assert model.corrected(0.0, 1.0) == model
