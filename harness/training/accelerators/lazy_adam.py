"""Adam on the rows of a wide table, each moved when it is read.

A step of dense Adam moves every row of a table, those without a gradient too: their moments decay and still move the
parameter. Nobody sees a row before it is read, so these steps can wait until then and be made up for at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.evaluation.compiling import can_compile, run_compiled
from harness.models.features import FeatureTable, feature_tables
from harness.training.optimiser import BETAS, EPSILON, Adam

SMALLEST = 2**20  # values of a table that moves by row; dense Adam is as fast on a smaller one
REMEMBERED = 512  # missed steps beyond these weigh less than 0.9^512 = 4e-24 of the first
TOLERANCE = 5e-6  # error allowed in what a row is moved by, relative; above it missed steps are made one by one

Array = NDArray[Any]


def tables_moved_by_row(model: nn.Module) -> list[FeatureTable]:
    """The large trained tables on a CPU of which the model reads rows alone, where numba is installed."""
    trained = [one for one in feature_tables(model) if one.by_row and one.table.requires_grad]
    found = [one for one in trained if one.table.numel() >= SMALLEST and one.table.device.type == "cpu"]
    return found if found and can_compile() else []


class LazyAdam(Adam):
    """Adam whose rows of `tables` are brought up to date when they are read.

    They are what dense Adam makes of them, to rounding, whenever `FeatureTable.project` or `state_dict` of the table
    is called; `catch_up` brings all of them up to date for other readers. Its state is kept by `exact_state` alone.
    """

    def __init__(self, groups: Iterable[Any], learning_rate: float, tables: Sequence[FeatureTable]) -> None:
        super().__init__(groups, learning_rate)
        self._rows = [(table, LazyRows(table)) for table in tables]
        for table, rows in self._rows:
            table.attach(rows.catch_up)

    def step(self) -> None:
        """One step from the present gradients; those of the tables are used up."""
        gradients = [table.table.grad for table, _ in self._rows]
        for table, _ in self._rows:
            table.table.grad = None
        super().step()
        for (_, rows), gradient in zip(self._rows, gradients, strict=True):
            if gradient is not None:
                rows.step(gradient, self.param_groups[0]["lr"])

    def catch_up(self) -> None:
        for _, rows in self._rows:
            rows.catch_up(None)

    def release(self) -> None:
        for table, _ in self._rows:
            table.detach()
        self._rows = []
        super().release()

    def _by_parameter(self) -> dict[int, "LazyRows"]:
        return {id(table.table): rows for table, rows in self._rows}

    def _state_of(self, parameter: Tensor) -> Mapping[str, Tensor]:
        rows = self._by_parameter().get(id(parameter))
        return super()._state_of(parameter) if rows is None else rows.exact_state()  # a `state_dict` rounds moments

    def _load_state_of(self, parameter: Tensor, values: dict[str, Tensor]) -> None:
        rows = self._by_parameter().get(id(parameter))
        if rows is None:
            super()._load_state_of(parameter, values)
        else:
            rows.load_exact_state(values)


class LazyRows:
    """The rows of one table [I, d] and their moments. Raises nothing of its own."""

    def __init__(self, features: FeatureTable) -> None:
        self._features = features
        self._moments = torch.zeros_like(features.table.detach()), torch.zeros_like(features.table.detach())
        self._known = np.full(len(features.table), -1)  # step that a row's moments are of; -1: they are zero
        self._last = self._known.copy()  # last step that the row itself has made, or made up for
        self._missed = MissedSteps()

    def catch_up(self, items: Tensor | None) -> None:
        """Make up for the steps that the rows of these items [n], or all, have missed."""
        rows = np.arange(len(self._last)) if items is None else items.numpy()
        last = self._last[rows]
        rows = np.unique(rows[(last >= 0) & (last < self._missed.step)])
        if len(rows):
            rows = rows[np.argsort(self._last[rows], kind="stable")]
            last = self._last[rows]
            expansion, error = self._missed.expansion(last)
            inexact = np.flatnonzero(~(error <= TOLERANCE))  # early last steps, and rates of 0
            n_exact = inexact[-1] + 1 if len(inexact) else 0
            steps = self._missed.after(last[0] if n_exact else self._missed.step)
            decays = _powers(last - self._known[rows])
            self._run("make_up", rows, decays, expansion, (last - last[0])[:n_exact], steps, REMEMBERED)
            self._last[rows] = self._missed.step

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """The next step, from a gradient [I, d]: a dense one, or a sparse one whose rows have been read."""
        if gradient.is_sparse:
            rows, values = gradient._indices()[0].numpy(), gradient._values()
            if len(np.unique(rows)) < len(rows):  # summing what is distinct already would be a copy
                gradient = gradient.coalesce()
                rows, values = gradient.indices()[0].numpy(), gradient.values()
        else:
            self.catch_up(None)
            rows, values = np.arange(len(self._last)), gradient.contiguous()
        now = self._missed.add(learning_rate)
        decays = _powers(np.where(self._known[rows] < 0, 0, self._missed.step - self._known[rows]))
        self._run("step", rows, values.numpy(), decays, 1 - np.array(BETAS), np.array(now))
        self._known[rows] = self._last[rows] = self._missed.step

    def exact_state(self) -> dict[str, Tensor]:
        """Moments as they are, and the step that each row's are of [I]; the table's own rows are up to date."""
        self.catch_up(None)
        first, second = self._moments
        step, known = torch.tensor(self._missed.step), torch.from_numpy(self._known)
        return {"step": step, "exp_avg": first, "exp_avg_sq": second, "known": known}

    def load_exact_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an `exact_state`; the table itself is loaded with the model."""
        self._moments = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
        self._missed = MissedSteps(int(state["step"]))
        self._known[:] = state["known"].numpy()
        self._last[:] = np.where(self._known < 0, -1, self._missed.step)

    def _run(self, loop: str, rows: Array, *arguments: Array | int) -> None:
        """A loop of `compiled` on the table and its moments, with as many threads as torch has."""
        from harness.training.accelerators import compiled

        arrays = [tensor.detach().numpy() for tensor in (self._features.table, *self._moments)]
        precision = arrays[0].dtype
        exact = [
            a.astype(precision, copy=False) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
            for a in arguments
        ]
        run_compiled(getattr(compiled, loop), *arrays, rows, *exact, np.array([*BETAS, EPSILON], precision))


class MissedSteps:
    """What steps without a gradient do to a parameter p with moments m, v, for any number of them at once.

    Step i, the j-th missed one, does p ← p − a_i m / (b_i √v + ε) with a_i = η_i β₁ʲ/(1−β₁ⁱ), b_i = √(β₂ʲ/(1−β₂ⁱ)), for
    the m and v of the last step made. The b_i are nearly equal, so their sum over i is developed around b̄, their mean
    weighted with a: with D = b̄√v + ε and r = √v/D it is m/D (M₀ + r²(M₂ − r M₃)), M_n = Σ a_i (b_i − b̄)ⁿ, and the next
    term, at most M₄/(M₀ b̄⁴) of it, is known. Where that is above TOLERANCE (in the first steps of a training, where
    bias correction is strong) the steps are made one by one.
    """

    def __init__(self, step: int = 0) -> None:
        self.step = step
        """Steps so far. No row has missed any of the first ones, as many as `step` was in the beginning."""
        self._sums = np.zeros((5, step + 1))  # Σ a_i b_iⁿ for n = 0…4, for each last step that a row may have made
        self._steps = [(0.0, 0.0)] * step  # η/(1−β₁ⁱ) and 1/√(1−β₂ⁱ) of each

    def add(self, learning_rate: float) -> tuple[float, float]:
        """A step i is made, with this rate η: η/(1−β₁ⁱ) and 1/√(1−β₂ⁱ)."""
        self.step += 1
        rate, scale = learning_rate / (1 - BETAS[0] ** self.step), (1 - BETAS[1] ** self.step) ** -0.5
        self._steps.append((rate, scale))
        if self.step == self._sums.shape[1]:  # room for as many again
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        start = max(0, self.step - REMEMBERED)
        missed = np.arange(self.step - start, 0, -1)  # j, by last step
        a, b = rate * BETAS[0] ** missed, scale * BETAS[1] ** (missed / 2)
        self._sums[:, start : self.step] += a * b ** np.arange(5)[:, None]
        return rate, scale

    def after(self, step: int) -> Array:
        """η/(1−β₁ⁱ) and 1/√(1−β₂ⁱ) of the steps i after `step`, [2, t]."""
        return np.array(self._steps[step:]).reshape(-1, 2).T

    def expansion(self, last: Array) -> tuple[Array, Array]:
        """b̄, M₀, M₂, M₃ [4, n] and M₄/(M₀ b̄⁴) [n] for rows with these last steps [n], all before the present one.

        The second is what the move is wrong by, relative to the move; NaN where all rates since have been 0.
        """
        s0, s1, s2, s3, s4 = self._sums[:, last]
        s0 = np.where(s0 == 0, np.nan, s0)
        mean = s1 / s0
        m2 = s2 - mean**2 * s0
        m3 = s3 - 3 * mean * s2 + 2 * mean**3 * s0
        m4 = s4 - 4 * mean * s3 + 6 * mean**2 * s2 - 3 * mean**4 * s0
        return np.stack([mean, s0, m2, m3]), m4 / (s0 * mean**4)


def _powers(n_steps: Array) -> Array:
    """What n steps [n] leave of both moments: [2, n]."""
    return np.array(BETAS)[:, None] ** n_steps
