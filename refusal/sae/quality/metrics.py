"""How good an autoencoder is on rows that it was not trained on; sums over batches, so that no data are held.

    fvu                 sum |x - x_hat|^2 / sum |x - mean x|^2: fraction of variance unexplained; 0 is perfect
    explained_variance  1 - sum |d - mean d|^2 / sum |x - mean x|^2 with d = x - x_hat: a constant offset is no error
    cosine              of x and x_hat, all rows as one long vector: rows that are nearly zero count for little
    l0                  mean number of features with f > 0 in a row
    dead_fraction       share of the features that fired in no row
    dense_fraction      share of the features that fired in over 10 % of the rows

A figure without a meaning (rows that do not vary, no rows) is None, never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

DENSE = 0.1  # a feature that fires in a larger share of the rows is no longer sparse


def fvu(x: Tensor, x_hat: Tensor) -> float | None:
    """Return the fraction of variance unexplained of rows [batch, d_model]; None where they do not vary."""
    total = float((x - x.mean(0)).square().sum())
    return float((x - x_hat).square().sum()) / total if total > 0 else None


class Quality:
    """The figures above, over all the batches added.

    Args:
        origin: A point near the rows' mean, [d_model]: sums of squares are taken from there, to lose no digits.
        d_sae: Number of features.
    """

    def __init__(self, origin: Tensor, d_sae: int) -> None:
        self._origin = origin
        self.n_rows = 0
        self._x = torch.zeros_like(origin, dtype=torch.float64)
        self._error = torch.zeros_like(origin, dtype=torch.float64)
        self._x_squared = self._error_squared = 0.0
        self._products = torch.zeros(3, dtype=torch.float64)  # x . x_hat, |x|^2, |x_hat|^2
        self._n_active = 0
        self._fired = torch.zeros(d_sae, dtype=torch.int64, device=origin.device)

    def add(self, x: Tensor, x_hat: Tensor, values: Tensor, indices: Tensor) -> None:
        """Add rows [batch, d_model], their reconstruction, and their active codes and features [batch, n]."""
        centred, error = x - self._origin, x - x_hat
        self.n_rows += len(x)
        self._x += centred.double().sum(0)
        self._error += error.double().sum(0)
        self._x_squared += float(centred.double().square().sum())
        self._error_squared += float(error.double().square().sum())
        pairs = ((x, x_hat), (x, x), (x_hat, x_hat))
        self._products += torch.stack([(a.double() * b.double()).sum() for a, b in pairs]).cpu()
        is_active = values > 0
        self._n_active += int(is_active.sum())
        self._fired += torch.bincount(indices[is_active], minlength=len(self._fired))

    def merge(self, other: Quality) -> None:
        """Add the rows that were added to another, of the same origin and as many features."""
        self.n_rows += other.n_rows
        self._x += other._x
        self._error += other._error
        self._x_squared += other._x_squared
        self._error_squared += other._error_squared
        self._products += other._products
        self._n_active += other._n_active
        self._fired += other._fired

    @property
    def fvu(self) -> float | None:
        """Fraction of variance unexplained."""
        total = self._variation(self._x_squared, self._x)
        return self._error_squared / total if total > 0 else None

    @property
    def explained_variance(self) -> float | None:
        """Share of the variance that remains explained once a constant offset is forgiven."""
        total = self._variation(self._x_squared, self._x)
        return 1 - self._variation(self._error_squared, self._error) / total if total > 0 else None

    @property
    def cosine(self) -> float | None:
        """Cosine between all rows and their reconstructions."""
        product, x_squared, x_hat_squared = self._products.tolist()
        return product / (x_squared * x_hat_squared) ** 0.5 if x_squared * x_hat_squared > 0 else None

    @property
    def l0(self) -> float | None:
        """Mean number of active features."""
        return self._n_active / self.n_rows if self.n_rows else None

    @property
    def dead_fraction(self) -> float | None:
        """Share of features that never fired."""
        return float((self._fired == 0).double().mean()) if self.n_rows else None

    @property
    def dense_fraction(self) -> float | None:
        """Share of features that fired in over a tenth of the rows."""
        return float((self._fired > DENSE * self.n_rows).double().mean()) if self.n_rows else None

    def result(self) -> dict[str, float | int | None]:
        """Return all figures, and the number of rows behind them."""
        names = ("fvu", "explained_variance", "cosine", "l0", "dead_fraction", "dense_fraction")
        return {"n_rows": self.n_rows, **{name: getattr(self, name) for name in names}}

    def _variation(self, squared: float, summed: Tensor) -> float:
        """Return the sum of squared distances from the mean; 0 where only rounding is left."""
        if self.n_rows == 0:
            return 0.0
        about_mean = squared - float(summed.square().sum()) / self.n_rows
        return about_mean if about_mean > 1e-12 * squared else 0.0
