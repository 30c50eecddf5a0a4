"""Predictions on a fine time grid, for smooth curves of every subject."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from hierax.data.population import Population
from hierax.infer.simulate.simulation import reads_data
from hierax.program.read import read_program
from hierax.results.fit import Evaluation
from hierax.results.individual import predictions

# Number of points of each subject's time grid.
POINTS = 100


class Curve(NamedTuple):
    """One subject's data and curves."""

    subject: Any
    times: np.ndarray
    observed: np.ndarray
    grid: np.ndarray
    individual: np.ndarray
    population: np.ndarray


def on_grid(pop: Population, points: int) -> Population:
    """Return the population with its records replaced by an even time grid over each subject's records.

    Doses stay as they are; a prediction at the time of a dose includes it. Values that vary by record follow the
    population's interpolation (the last value before a point, where none is named). The grid is even in the time that
    has passed since the first record; where a reset turns the clock back, the times of the grid go back with it.
    """
    times, held = np.asarray(pop.times), np.asarray(pop.record_mask)
    segment = np.asarray(pop.segment)
    gaps = np.maximum(np.diff(times), 0.0)
    passed = np.concatenate([np.zeros((len(times), 1)), np.cumsum(gaps, axis=1)], axis=1)
    grid = np.where(held, passed, 0.0).max(1)[:, None] * np.linspace(0, 1, points)
    # Index of the last real record at or before each grid point.
    before = (np.where(held, passed, np.inf)[:, None, :] <= grid[:, :, None]).sum(-1) - 1
    before = np.maximum(before, 0)
    rows = np.arange(len(times))[:, None]
    grid = times[rows, before] + grid - passed[rows, before]
    after = np.minimum(before + (times[rows, before] < grid), held.sum(1)[:, None] - 1)
    inside = pop.interpolation == "nocb"

    def first_point(record: np.ndarray) -> np.ndarray:
        """Return the first grid point that is at or after a record of the population."""
        return (before[:, None, :] < record[:, :, None]).sum(-1)

    def carry(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        varying = leaf.ndim >= 2 and leaf.shape[1] == times.shape[1] and leaf.shape[1] > 1
        if not varying:
            return leaf
        if pop.interpolation == "linear" and np.issubdtype(leaf.dtype, np.floating):
            low, high = times[rows, before], times[rows, after]
            part = np.where(high > low, (grid - low) / np.where(high > low, high - low, 1.0), 0.0)
            part = part.reshape(part.shape + (1,) * (leaf.ndim - 2))
            return leaf[rows, before] + part * (leaf[rows, after] - leaf[rows, before])
        return leaf[rows, np.where(segment[rows, after] == segment[rows, before], after, before) if inside else before]

    no = np.zeros(grid.shape, bool)
    return dataclasses.replace(
        pop,
        times=grid,
        dv={name: np.zeros(grid.shape) for name in pop.dv},
        mask={name: no for name in pop.mask},
        covariates={name: carry(leaf) for name, leaf in pop.covariates.items()},
        data={name: carry(leaf) for name, leaf in pop.data.items()},
        events=dataclasses.replace(
            pop.events, record=np.minimum(first_point(np.asarray(pop.events.record)), points - 1)
        ),
        segment=segment[rows, before],
        records={},
        record_mask=np.ones(grid.shape, bool),
        occasion=None if pop.occasion is None else carry(pop.occasion),
        cens={},
        limit={},
        censoring=(),
        grids={},
    )


def fine_predictions(fit: Evaluation, endpoint: str, most: int) -> list[Curve]:
    """Return the curves of the first ``most`` real subjects.

    A program that reads earlier observations is evaluated at the records only, because there are no observations
    between them that it could read.
    """
    rows = fit.rows[:most]
    fine = fit.pop if reads_data(fit.program, fit.pop) else on_grid(fit.pop, POINTS)
    program = read_program(fit.program.model, fine, fit.program.plate, checked=False)
    individual = np.asarray(predictions(program, fine, fit.params, fit.eta)[0][endpoint][0])
    population = np.asarray(predictions(program, fine, fit.params, None)[0][endpoint][0])
    out = []
    for row in rows:
        seen = np.asarray(fit.pop.mask[endpoint])[row]
        # NaN interrupts the curve at padding, and where the clock is turned back.
        back = np.diff(np.asarray(fine.times)[row], prepend=-np.inf) < 0
        back |= ~np.asarray(fine.record_mask)[row]
        subject = fit.ids[len(out)]
        out.append(
            Curve(
                subject,
                np.asarray(fit.pop.times)[row][seen],
                np.asarray(fit.pop.dv[endpoint])[row][seen],
                np.asarray(fine.times)[row],
                np.where(back, np.nan, individual[row]),
                np.where(back, np.nan, population[row]),
            )
        )
    return out
