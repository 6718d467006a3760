from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations.encoding import check_dtype, decode
from refusal.activations.forward import encode


def test_bfloat16_keeps_the_upper_half_of_a_float() -> None:
    # 1.0 is 0x3F800000 and -2.5 is 0xC0200000: their lower halves are zero, so both survive exactly
    stored = encode(torch.tensor([1.0, -2.5]), "bfloat16")
    assert stored.tolist() == [0x3F80, 0xC020]
    assert decode(stored, "bfloat16").tolist() == [1.0, -2.5]


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_what_is_read_back_is_what_torch_rounds_to(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    np.testing.assert_array_equal(decode(encode(x, "bfloat16"), "bfloat16"), x.to(torch.bfloat16).float().numpy())
    np.testing.assert_array_equal(decode(encode(x, "float32"), "float32"), x.numpy())


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match=r"float16.*float32, bfloat16"):
        check_dtype("float16")
