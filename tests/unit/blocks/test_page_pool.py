"""Pages of the decode cache: sharing, copy on write, neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_worker.blocks import PagePool
from dualpath_worker.blocks.pages import PageError
from dualpath_worker.blocks.runs import pick


def test_a_shared_page_is_freed_by_its_last_owner():
    pool = PagePool(4)
    pages = pool.take(3)
    pool.share(pages)
    pool.drop(pages)
    assert (pool.used, pool.available) == (3, 1)
    pool.drop(pages)
    assert pool.used == 0


def test_a_sequence_grows_into_the_page_behind_its_last_one():
    pool = PagePool(10)
    first = pool.take(2)
    pool.take(2)
    third = pool.take(1)
    pool.drop([2])
    assert pool.take(1, after=first[-1]) == [2]
    assert pool.take(1, after=third[-1]) == [5]
    assert pool.take(1, after=9) == [6]


def test_writing_into_a_shared_page_takes_a_new_one():
    pool = PagePool(2)
    (page,) = pool.take(1)
    assert pool.own(page) == page
    pool.share([page])
    fresh = pool.own(page)
    assert fresh != page
    assert (pool.refs(page), pool.refs(fresh)) == (1, 1)


def test_without_a_free_page_the_shared_one_is_kept():
    pool = PagePool(1)
    (page,) = pool.take(1)
    pool.share([page])
    assert pool.own(page) is None
    assert pool.refs(page) == 2


@pytest.mark.parametrize("verb", ["share", "drop"])
def test_a_free_page_has_no_owner_to_add_or_remove(verb):
    with pytest.raises(PageError, match="nobody has it"):
        getattr(PagePool(3), verb)([1])
    with pytest.raises(PageError, match="nobody has it"):
        getattr(PagePool(3), verb)([3])


@given(free=st.lists(st.booleans(), max_size=40), n=st.integers(0, 42), after=st.none() | st.integers(0, 40))
def test_picked_indices_are_free_distinct_and_as_many_as_asked(free, n, after):
    mask = np.array(free, np.bool_)
    picked = pick(mask, n, after=after)
    if n > sum(free):
        assert picked is None
        return
    assert len(picked) == len(set(picked)) == n
    assert all(free[i] for i in picked)
    assert picked == sorted(picked)
    longest = max((len(run) for run in "".join("x" if f else " " for f in free).split()), default=0)
    if 0 < n <= longest:
        assert picked[-1] - picked[0] == n - 1
