"""The optimiser of a run: Adam as published. Wide tables that are read by row are moved when their rows are read.

A step of dense Adam moves every row of a table, those without a gradient too: their moments decay and still move the
parameter. Nobody sees a row before it is read, so these steps can wait until then and be made up for at once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam as adam_

from bm3.features import FeatureTable

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
BLOCK_VALUES = 2**18  # of a table, moved at a time: its rows and moments stay in cache meanwhile
REMEMBERED = 512  # missed steps beyond these weigh less than 0.9^512 = 4e-24 of the first
TOLERANCE = 1e-6  # error allowed in what a row is moved by, relative; above it missed steps are made one by one


def adam(model: Any, learning_rate: float) -> "Adam":
    """Dense Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()` or all its trainable parameters.

    A parameter without a gradient in a step is left alone, moments and step count included.
    """
    if hasattr(model, "parameter_groups"):
        groups = model.parameter_groups()
    else:
        groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    by_row = getattr(model, "reads_feature_rows", False) and not hasattr(model, "parameter_groups")
    tables = [module for module in model.modules() if isinstance(module, FeatureTable)] if by_row else []
    return Adam(groups, learning_rate, [table for table in tables if table.table.requires_grad])


def set_learning_rate(optimiser: torch.optim.Optimizer, model: Any, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's `learning_rate_factor(epoch)`, if it has one."""
    factor = model.learning_rate_factor(epoch) if hasattr(model, "learning_rate_factor") else 1.0
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * factor


class Adam(torch.optim.Adam):
    """torch's fused Adam; the rows of `tables` are brought up to date when they are read.

    They are what dense Adam makes of them, to rounding, whenever `FeatureTable.project` or `state_dict` of the table
    is called; `catch_up` brings all of them up to date for other readers. Only tables on a CPU are treated so.
    """

    def __init__(self, groups: Iterable[Any], learning_rate: float, tables: Sequence[FeatureTable] = ()) -> None:
        super().__init__(groups, lr=learning_rate, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True)
        self._rows = [_Rows(table) for table in tables if table.table.device.type == "cpu"]
        for rows, table in zip(self._rows, tables, strict=False):
            table.row_gradients, table.before_read = True, rows.catch_up
            table.register_state_dict_pre_hook(lambda *_, rows=rows: rows.catch_up(None))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the present gradients; those of the tables are used up."""
        of_tables = [rows.take_gradient() for rows in self._rows]
        super().step(closure)
        for rows, gradient in zip(self._rows, of_tables, strict=True):
            if gradient is not None:
                rows.step(gradient, self.param_groups[0]["lr"])

    def catch_up(self) -> None:
        """Bring every row of every table up to date."""
        for rows in self._rows:
            rows.catch_up(None)


class _Rows:
    """The rows of one table, their moments, and the last step that each has made."""

    def __init__(self, features: FeatureTable) -> None:
        self._table = features.table
        self._first, self._second = torch.zeros_like(self._table), torch.zeros_like(self._table)
        self._last = torch.full((len(self._table),), -1)  # -1: no gradient yet, so moments are zero and nothing moves
        self._missed = MissedSteps()
        self._block = max(1, BLOCK_VALUES // self._table.shape[1])

    def take_gradient(self) -> Tensor | None:
        gradient, self._table.grad = self._table.grad, None
        return gradient

    @torch.no_grad()
    def catch_up(self, items: Tensor | None) -> None:
        """Make up for the steps that the rows of these items [n], or all, have missed."""
        now = self._missed.step
        last = self._last if items is None else self._last[items]
        behind = ((last >= 0) & (last < now)).nonzero().squeeze(1)
        if len(behind):
            last, rows = last[behind].sort()
            rows = behind[rows] if items is None else items[behind[rows]]
            for some, since in zip(rows.split(self._block), last.split(self._block), strict=True):
                self._make_up(some, since)
            self._last[rows] = now

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """The next step, from a sparse gradient whose rows are up to date, or a dense one."""
        if not gradient.is_sparse:
            self.catch_up(None)
            rows, values = torch.arange(len(self._table)), gradient
        else:
            gradient = gradient if gradient.is_coalesced() else gradient.coalesce()
            rows, values = gradient._indices()[0], gradient._values()
        self._missed.add(learning_rate)
        count = torch.tensor(float(self._missed.step))
        for some, gradients in zip(rows.split(self._block), values.split(self._block), strict=True):
            parameter, first, second = (table[some] for table in (self._table, self._first, self._second))
            adam_(
                [parameter],
                [gradients],
                [first],
                [second],
                [],
                [count - 1],
                fused=True,
                amsgrad=False,
                beta1=BETA_1,
                beta2=BETA_2,
                lr=learning_rate,
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )
            self._write(some, parameter, first, second)
        self._last[rows] = self._missed.step

    def _make_up(self, rows: Tensor, last: Tensor) -> None:
        """For rows [n] and the last step of each [n], ascending."""
        parameter, first, second = (table[rows] for table in (self._table, self._first, self._second))
        self._missed.make_up(parameter, first, second, last.numpy())
        self._write(rows, parameter, first, second)

    def _write(self, rows: Tensor, parameter: Tensor, first: Tensor, second: Tensor) -> None:
        self._table.index_copy_(0, rows, parameter)
        self._first.index_copy_(0, rows, first)
        self._second.index_copy_(0, rows, second)


class MissedSteps:
    """What steps without a gradient do to a parameter p with moments m, v, for any number of them at once.

    Step i, the j-th missed one, does p ← p − a_i m / (b_i √v + ε) with a_i = η_i β₁ʲ/(1−β₁ⁱ), b_i = √(β₂ʲ/(1−β₂ⁱ)), m and
    v being those of the last step made. The b_i are nearly equal, so their sum over i is developed around b̄, their mean
    weighted with a: with D = b̄√v + ε and r = √v/D it is m/D (M₀ + r²(M₂ − r M₃)), M_n = Σ a_i (b_i − b̄)ⁿ, and the next
    term, at most M₄/(M₀ b̄⁴) of it, is known. Where that is above TOLERANCE (in the first steps of a training, where
    bias correction is strong) the steps are made one by one.
    """

    def __init__(self) -> None:
        self.step = 0
        """Steps so far."""
        self._sums = np.zeros((5, 1))  # Σ a_i b_iⁿ for n = 0…4 and each last step that a row may have made
        self._steps: list[tuple[float, float]] = [(0.0, 0.0)]  # per step η/(1−β₁ⁱ) and 1/√(1−β₂ⁱ)

    def add(self, learning_rate: float) -> None:
        """A step is made, with this rate η."""
        self.step += 1
        corrected = learning_rate / (1 - BETA_1**self.step), (1 - BETA_2**self.step) ** -0.5
        self._steps.append(corrected)
        if self.step == self._sums.shape[1]:  # room for as many again
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        start = max(0, self.step - REMEMBERED)
        missed = np.arange(self.step - start, 0, -1)  # j, by last step
        b = BETA_2 ** (missed / 2) * corrected[1]
        self._sums[:, start : self.step] += corrected[0] * BETA_1**missed * b ** np.arange(5)[:, None]

    def make_up(self, parameter: Tensor, first: Tensor, second: Tensor, last: NDArray[np.int64]) -> None:
        """Bring rows [n, d] and their moments from the step `last` [n], ascending, to the present, in place."""
        mean, moments, error = self._developed(last)
        n = int((error > TOLERANCE).sum())  # the earlier the last step, the larger the error
        root = second.sqrt()
        self._one_by_one(parameter[:n], first[:n], root[:n], last[:n])
        self._at_once(parameter[n:], first[n:], root[n:], mean[n:], moments[:, n:])
        missed = self.step - last
        first.mul_(_column(BETA_1**missed, first))
        second.mul_(_column(BETA_2**missed, first))

    def _developed(self, last: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """b̄ [n], (M₀, M₂, M₃) [3, n] and M₄/(M₀ b̄⁴) [n], for rows with these last steps [n]."""
        s0, s1, s2, s3, s4 = self._sums[:, last]
        mean = s1 / s0
        m2 = s2 - mean**2 * s0
        m3 = s3 - 3 * mean * s2 + 2 * mean**3 * s0
        m4 = s4 - 4 * mean * s3 + 6 * mean**2 * s2 - 3 * mean**4 * s0
        return mean, np.stack([s0, m2, m3]), m4 / (s0 * mean**4)

    @staticmethod
    def _at_once(parameter: Tensor, first: Tensor, root: Tensor, mean: NDArray[Any], moments: NDArray[Any]) -> None:
        m0, m2, m3 = (_column(moment, first) for moment in moments)
        denominator = (root * _column(mean, first)).add_(EPSILON)
        ratio = root.div_(denominator)
        move = (ratio * m3).neg_().add_(m2).mul_(ratio).mul_(ratio).add_(m0)
        parameter.sub_(move.mul_(first).div_(denominator))

    def _one_by_one(self, parameter: Tensor, first: Tensor, root: Tensor, last: NDArray[np.int64]) -> None:
        for i in range(int(last[0]) + 1, self.step + 1) if len(last) else ():
            n = int(np.searchsorted(last, i))  # rows that have not made step i
            missed, (rate, scale) = i - last[:n], self._steps[i]
            denominator = (root[:n] * _column(scale * BETA_2 ** (missed / 2), first)).add_(EPSILON)
            parameter[:n].sub_((first[:n] * _column(rate * BETA_1**missed, first)).div_(denominator))


def _column(values: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)[:, None]
