from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations.portion import Portion, parse_portion


@given(count=st.integers(1, 40), n_items=st.integers(0, 200))
def test_every_item_is_in_one_portion_and_portions_are_even(count: int, n_items: int) -> None:
    items = range(n_items)
    portions = [Portion(number, count).of(items) for number in range(1, count + 1)]
    assert sorted(item for portion in portions for item in portion) == list(items)
    sizes = [len(portion) for portion in portions]
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(1, 10**6), data=st.data())
def test_a_portion_is_read_as_it_is_written(count: int, data: st.DataObject) -> None:
    portion = Portion(data.draw(st.integers(1, count)), count)
    assert parse_portion(str(portion)) == portion


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "0/0", "1/2/3", "1.5/3", "a/b", "1/", " 1/2", "\u0661/2"]
)
def test_what_is_no_portion_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"shard=.*: give a part and the number of parts, such as shard=3/16"):
        parse_portion(text)


def test_portions_take_the_gpus_of_a_machine_by_turns() -> None:
    assert [Portion(number, 6).gpu(4) for number in range(1, 7)] == [0, 1, 2, 3, 0, 1]
