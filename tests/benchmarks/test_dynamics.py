"""ODEs: the frozen grid against vmapped diffrax at the same error, in one run; run by `make bench`.

The yardstick is diffrax at its best for this design: one adaptive solve from dose to dose (three a subject), Tsit5,
PIDController, samples by its dense output, checks off.
"""

import os

os.environ.setdefault("EQX_ON_ERROR", "nan")

import dataclasses
import time

import deep
import diffrax
import indirect
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import turnover
from memory import peak_gigabytes
from numpyro import handlers

import hierax as hx
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout

pytestmark = pytest.mark.benchmark
SUBJECTS = 60


def best_time(function, repeats=20):
    """Return the median time of a call in seconds, after the one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def by_diffrax(rtol, atol, max_steps):
    term, controller = diffrax.ODETerm(indirect.field), diffrax.PIDController(rtol=rtol, atol=atol)

    def one(times, starts, amounts, p):
        ends = jnp.concatenate([starts[1:], jnp.array([indirect.HORIZON])])
        y = jax.tree.map(jnp.asarray, {"depot": 0.0, "central": 0.0, "R": p["Kin"] / p["Kout"]})

        def part(y, this):
            t0, t1, amount = this
            y = {**y, "depot": y["depot"] + amount}
            inside = diffrax.SubSaveAt(ts=jnp.clip(times, t0, t1))
            found = diffrax.diffeqsolve(
                term, diffrax.Tsit5(), t0, t1, None, y, p, stepsize_controller=controller, max_steps=max_steps,
                saveat=diffrax.SaveAt(subs=[inside, diffrax.SubSaveAt(t1=True)]), adjoint=diffrax.DirectAdjoint(),
            )  # fmt: skip
            seen, end = found.ys
            here = (times >= t0) & ((times < t1) | (t1 == indirect.HORIZON))
            return jax.tree.map(lambda leaf: leaf[0], end), (seen, here)

        _, (seen, here) = jax.lax.scan(part, y, (starts, ends, amounts))
        return jax.tree.map(lambda leaf: jnp.where(here, leaf, 0.0).sum(0), seen)

    def solve(pop, p, **options):
        p = {name: jnp.broadcast_to(value, (pop.n_subjects, 1))[:, 0] for name, value in p.items()}
        events = pop.events
        return jax.vmap(one)(jnp.asarray(pop.times), jnp.asarray(events.time), jnp.asarray(events.amount), p)

    return solve


@pytest.fixture(scope="module")
def experiment():
    pop = indirect.design(SUBJECTS)
    rng = np.random.default_rng(1)
    spread = {name: 0.3 * (name in ("Ka", "Kout", "Smax", "n")) for name in indirect.TRUTH}
    p = {k: jnp.asarray(v * np.exp(spread[k] * rng.normal(size=(SUBJECTS, 1)))) for k, v in indirect.TRUTH.items()}
    return pop, p


def test_forward_solve(benchmark, experiment):
    pop, p = experiment
    seen = np.asarray(pop.records["evid"]) == 0
    exact = hx.Grid(1e-12, method="dopri8", steps=2048)
    right = jax.jit(lambda pop, p: indirect.states(pop, p, solver=exact))(pop, p)

    def error(found):
        worst = 0.0
        for name, value in right.items():
            scale = np.abs(value) + 1e-3 * np.abs(value).max(1, keepdims=True)
            worst = max(worst, float(np.max(np.where(seen, np.abs(found[name] - value) / scale, 0.0))))
        return worst

    grid = hx.Grid(4e-7, method="dopri8")

    def problem(pop, p):
        with handlers.trace() as trace:
            indirect.states(pop, p, solver=grid)
        return trace["ode"]["args"][0]

    place = jax.jit(lambda pop, p: grid.place(problem(pop, p).frozen(), 128))
    placed = place(pop, p)
    placed = placed.cropped(-(-int(placed.count.max()) // 8) * 8)
    placed = jax.jit(lambda pop, p, placed: placed.ordered(problem(pop, p)))(pop, p, placed)
    held = dataclasses.replace(pop, grids={"ode": placed})
    ours = jax.jit(lambda pop, p: indirect.states(pop, p, solver=grid))
    theirs = jax.jit(by_diffrax(1e-7, 1e-9, 256))
    mine = best_time(lambda: ours(held, p), 100) + best_time(lambda: place(pop, p)) / 20
    other = best_time(lambda: theirs(pop, p))
    benchmark(lambda: jax.block_until_ready(ours(held, p)))
    errors = error(ours(held, p)), error(theirs(pop, p))
    benchmark.extra_info.update(
        milliseconds_with_placing=1e3 * mine, diffrax_milliseconds=1e3 * other, ratio=other / mine, errors=errors
    )
    assert errors[0] < 1e-6
    assert errors[0] <= errors[1]


def session_of(program, pop):
    parsed = hx.program(program, pop).program
    return Session(parsed, hx.FOCE(), pop, layout(parsed))


def test_foce_objective_and_gradient(benchmark, experiment, monkeypatch):
    pop, _ = experiment
    program = indirect.model()
    pop = pop.with_dv(dv=hx.simulate(program, pop, seed=3)["dv"].values[0])
    session = session_of(program, pop)
    flat = session.layout.start(None)
    out = session.evaluate(flat)
    run = jax.jit(lambda pop, eta: session.program.run(pop, session.program.start(), eta).messages["ode"]["value"])
    forward = best_time(lambda: run(session.pop, out.eta).states["R"])
    mine = best_time(lambda: session.evaluate(flat, out.eta).value, 10)
    benchmark(lambda: jax.block_until_ready(session.evaluate(flat, out.eta)))
    monkeypatch.setattr(indirect, "states", by_diffrax(1e-6, 1e-8, 256))
    other = session_of(indirect.model(), pop)
    theirs = other.evaluate(flat, out.eta)
    slow = best_time(lambda: other.evaluate(flat, theirs.eta).value, 3)
    benchmark.extra_info.update(
        compile_seconds=session.compile_seconds,
        diffrax_compile_seconds=other.compile_seconds,
        ratio_to_diffrax=slow / mine,
        ratio_to_one_forward_solve=mine / forward,
        solver_error=session.grids.error,
        steps=session.grids.sizes,
        difference=float(np.abs(np.asarray(out.value) - np.asarray(theirs.value)).max()),
    )


@pytest.mark.parametrize("size", [60, 600, 6000])
def test_subjects(benchmark, size):
    """One evaluation with warm modes: time by subject, memory."""

    pop = indirect.design(size)
    program = indirect.model()
    pop = pop.with_dv(dv=hx.simulate(program, pop, seed=3)["dv"].values[0])
    session = session_of(program, pop)
    flat = session.layout.start(None)
    out = session.evaluate(flat)
    benchmark.pedantic(lambda: jax.block_until_ready(session.evaluate(flat, out.eta)), rounds=2, warmup_rounds=1)
    peak = 1e3 * peak_gigabytes()
    benchmark.extra_info.update(subjects=size, steps=session.grids.sizes, peak_memory_mb=peak)


def test_turnover_fit(benchmark):
    """From nothing to the optimum, compilation included."""
    pop = turnover.simulated()
    fit = benchmark.pedantic(lambda: hx.fit(turnover.program(), pop, hx.FOCE(), progress=False), rounds=1)
    benchmark.extra_info.update(ofv=fit.ofv, timing=fit.timing, gradient=fit.history["gradient"].iloc[-1])
    assert fit.result is hx.Result.converged


@pytest.mark.parametrize("width", [6, 16, 64])
def test_a_network_in_the_vector_field(benchmark, width):
    """A solve for 60 subjects, and an evaluation of FOCE with all gradients, beside the Hill function instead."""
    pop, _ = deep.simulated(60, seed=0)
    times = {}
    for name, model in {"hill": deep.structured("hill"), "network": deep.deep(2, width)}.items():
        session = session_of(model, pop)
        flat = session.layout.start(None)
        out = session.evaluate(flat)
        params = session.layout.params(flat)
        run = jax.jit(
            lambda pop, eta, params=params, s=session: s.program.run(pop, params, eta).messages["ode"]["value"]
        )
        forward = best_time(lambda s=session, out=out, run=run: run(s.pop, out.eta).states["R"])
        whole = best_time(lambda s=session, out=out, flat=flat: s.evaluate(flat, out.eta).value, 5)
        times[name] = {
            "forward": forward, "objective": whole, "compile": session.compile_seconds, "parameters": int(flat.size),
            "steps": session.grids.sizes, "solver_error": session.grids.error,
        }  # fmt: skip
    benchmark.extra_info.update(times)
    benchmark.extra_info["ratios"] = {
        key: times["network"][key] / times["hill"][key] for key in ("forward", "objective", "compile")
    }
    benchmark.pedantic(lambda: None, rounds=1)
    assert max(one["solver_error"]["ode"] for one in times.values()) < 1e-2
