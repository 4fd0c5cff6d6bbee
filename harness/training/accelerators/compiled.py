"""The loops of `rows`, compiled by numba. A row and its moments are read and written once, where they lie.

Arguments are arrays of one precision, of which `constants` [3] are β₁, β₂ and ε, and `rows` [n], integers.
"""

import math
from typing import Any

from numba import prange

from harness.evaluation.compiling import compile_loop


@compile_loop
def make_up(
    table: Any,
    first: Any,
    second: Any,
    rows: Any,
    decays: Any,
    expansion: Any,
    starts: Any,
    steps: Any,
    n_steps: int,
    constants: Any,
) -> None:
    """Steps that rows of table, first, second [I, d] have missed; `decays` [2, n] brings moments to a row's last one.

    The first rows, those with an entry in `starts` [k], make the `steps` [2, t] from there on one by one, as
    `MissedSteps` has them; the others make them at once, by `expansion` [4, n]: b̄, M₀, M₂, M₃.
    """
    beta_1, beta_2, epsilon = constants
    for k in prange(len(rows)):
        p, m, v = table[rows[k]], first[rows[k]], second[rows[k]]
        for_m, for_v = decays[0, k], decays[1, k]
        if k < len(starts):
            for i in range(starts[k], min(starts[k] + n_steps, steps.shape[1])):
                for_m, for_v = for_m * beta_1, for_v * beta_2
                rate, scale = steps[0, i], steps[1, i]
                for c in range(len(p)):
                    p[c] -= rate * for_m * m[c] / (scale * math.sqrt(for_v * v[c]) + epsilon)
        else:
            mean, m0, m2, m3 = expansion[0, k], expansion[1, k], expansion[2, k], expansion[3, k]
            for c in range(len(p)):
                root = math.sqrt(for_v * v[c])
                denominator = mean * root + epsilon
                ratio = root / denominator
                p[c] -= for_m * m[c] * (m0 + ratio * ratio * (m2 - ratio * m3)) / denominator


@compile_loop
def step(
    table: Any, first: Any, second: Any, rows: Any, gradients: Any, decays: Any, weights: Any, now: Any, constants: Any
) -> None:
    """One step of rows with gradients [n, d]: m ← decay m + weight g, v ← decay v + weight g², p ← p − a m/(b √v + ε).

    `decays` [2, n], `weights` [2] and `now` [2]: a and b.
    """
    epsilon = constants[2]
    (for_g, for_square), (rate, scale) = weights, now
    for k in prange(len(rows)):
        p, m, v, g = table[rows[k]], first[rows[k]], second[rows[k]], gradients[k]
        for_m, for_v = decays[0, k], decays[1, k]
        for c in range(len(p)):
            m[c] = for_m * m[c] + for_g * g[c]
            v[c] = for_v * v[c] + for_square * g[c] * g[c]
            p[c] -= rate * m[c] / (scale * math.sqrt(v[c]) + epsilon)
