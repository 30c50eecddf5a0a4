import os
import time
import warnings

import numpyro
import pytest

numpyro.enable_x64()

# ArviZ 0.23 announces its successor when it is imported; do that once, outside the tests that raise on warnings.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz  # noqa: F401

import zoo  # noqa: E402

import hierax as hx  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep a file's tests, which share what is compiled, in one worker; tutorials share nothing."""
    for item in items:
        alone = item.path.name == "test_tutorials.py"
        item.add_marker(pytest.mark.xdist_group(item.name if alone else item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip, and say so, what is left after the moment (seconds since 1970) that CI gives its slow tests."""
    until = os.environ.get("HIERAX_TEST_UNTIL")
    if until and time.time() > float(until):
        pytest.skip("no time is left on this machine")


@pytest.fixture(scope="session")
def theo_pop():
    return zoo.theophylline_population()


@pytest.fixture(scope="session")
def theo_fit(theo_pop):
    return hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), progress=False)


@pytest.fixture(scope="session")
def sleep_pop():
    return hx.read_nonmem(hx.datasets.load("sleepstudy"))
