"""Options are checked by their annotations, for everything that has some; warnings point at the user's line."""

import dataclasses
import warnings

import numpy as np
import pytest
import typer
from linear_normal import linear, linear_population

import hierax as hx
from hierax.cli.arguments import named_estimator
from hierax.infer.method import COMMANDS
from hierax.options import Options

EVERYTHING = sorted(
    {kind for kind, _ in COMMANDS.values()}
    | {hx.Newton, hx.QuasiNewton, hx.Kernels, hx.Grid, hx.Adaptive, hx.ImportanceSampling}
    | {hx.guides.Normal, hx.guides.Amortised},
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("kind", EVERYTHING, ids=lambda one: one.__name__)
def test_every_option_refuses_what_is_none(kind):
    assert issubclass(kind, Options)
    for field in dataclasses.fields(kind):
        # What users bring themselves (an optimiser, a module, a diffrax solver) may be anything.
        if field.init and field.type != "Any":
            with pytest.raises(ValueError, match=rf"{kind.__name__}\({field.name}=\[1\]\) (is not known|must be )"):
                kind(**{field.name: [1]})
            with pytest.raises(ValueError, match=field.name):
                kind(**{field.name: "nonsense"})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: hx.NUTS(draws=2.5), r"NUTS\(draws=2.5\) must be a whole number"),
        (lambda: hx.NUTS("500"), r"NUTS\(warmup='500'\) must be a whole number"),
        (lambda: hx.NUTS(centring="a"), r"NUTS\(centring='a'\) is not known. Use 'auto', True or False"),
        (lambda: hx.VI(learning_rate=-1.0), "learning_rate=-1.0 must be a number above 0"),
        (lambda: hx.Adaptive(max_steps=0), "max_steps=0 must be a whole number of 1 or more"),
        (lambda: hx.MAP(hx.NUTS()), "must be an approximation of the marginal likelihood"),
    ],
)
def test_values_of_another_kind_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_names_on_the_command_line_say_what_is_not_stable_yet():
    assert hx.FOCE.maturity == "stable"
    with pytest.raises(typer.BadParameter, match=r"foce, .*qrpem \(experimental\), saem, vi \(beta\)"):
        named_estimator("nutz")


def test_values_of_the_right_kind_are_taken():
    assert hx.NUTS(draws=np.int64(5), target_accept=np.float64(0.9), centring=True).draws == 5
    assert dataclasses.replace(hx.VI(), batch=None, steps=10).steps == 10


def test_a_warning_points_at_the_line_that_called():
    pop = linear_population(np.random.default_rng(0).normal(1.0, 1.0, (8, 3)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hx.fit(linear, pop, hx.FOCE(optimiser=hx.QuasiNewton(max_iter=1)), progress=False)
    ours = [one for one in caught if issubclass(one.category, hx.HieraxWarning)]
    assert ours
    assert {one.filename for one in ours} == {__file__}
