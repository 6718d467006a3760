from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from refusal import InputError
from refusal.circuits.importances import Attribution, Importances, from_rows, load_attribution, save_attribution
from refusal.models.sites import parse_site

SITE = parse_site("mlp_1")


def example() -> Importances:
    return Importances(
        "mlp_1",
        sparse.csr_array(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 4.0]], np.float32)),
        np.array([0.5, 1.5], np.float32),
    )


def test_the_total_of_a_prompt_has_the_error_in_it() -> None:
    np.testing.assert_allclose(example().total, [3.5, 5.5])  # 1 + 2 + 0.5, 4 + 1.5


def test_the_mean_ends_with_the_error_node() -> None:
    np.testing.assert_allclose(example().mean(np.array([0, 1])), [0.5, 0, 3, 1])
    np.testing.assert_allclose(example().mean(np.array([1])), [0, 0, 4, 1.5])


def test_pieces_are_joined_in_order() -> None:
    dense = example().values.toarray()
    joined = from_rows(SITE, [dense[:1], dense[1:]], [np.array([0.5]), np.array([1.5])])
    np.testing.assert_array_equal(joined.values.toarray(), dense)
    assert joined.values.nnz == 3


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "attribution.h5"
    save_attribution(path, Attribution({SITE: example()}, ["a", "\u00e9"], "atp", "mean", "last"))
    loaded = load_attribution(path)
    np.testing.assert_array_equal(loaded.importances[SITE].values.toarray(), example().values.toarray())
    np.testing.assert_array_equal(loaded.importances[SITE].error, example().error)
    assert (loaded.prompt_ids, loaded.method, loaded.baseline, loaded.positions) == (
        ["a", "\u00e9"],
        "atp",
        "mean",
        "last",
    )


def test_a_cut_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "attribution.h5"
    save_attribution(path, Attribution({SITE: example()}, ["a", "b"], "atp", "mean", "last"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="is damaged"):
        load_attribution(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*attribution\.h5"):
        load_attribution(tmp_path / "attribution.h5")
