"""How evaluation batches are dealt to processes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from softmask.training.answer_trainer import dealt_round


@given(st.integers(1, 40), st.integers(1, 9))
def test_every_batch_is_dealt_and_every_process_has_equally_many_none_more_than_needed(n: int, processes: int) -> None:
    dealt = dealt_round(n, processes)
    assert set(itertools.chain(*dealt)) == set(range(n))
    assert {len(batches) for batches in dealt} == {-(-n // processes)} and len(dealt) == processes
