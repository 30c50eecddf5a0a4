import gc
import os
import time
import warnings

import jax
import pytest

if os.environ.get("HIERAX_AXES"):
    # Every array is held to the axes that its annotation names; see tests/axes.py.
    from jaxtyping import install_import_hook

    install_import_hook("hierax", os.environ["HIERAX_AXES"])

from hierax.cli.commands import prepare
from hierax.program import read

# Nearly all of the time of the tests is compilation: all workers, all Pythons and later runs share what is compiled.
prepare()

# ArviZ 0.23 announces its successor when it is imported; do that once, outside the tests that raise on warnings.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz  # noqa: F401

import zoo  # noqa: E402
from memory import memory_maps  # noqa: E402

import hierax as hx  # noqa: E402

# A process may have 65 530 memory maps on Linux, and one more ends it by a segmentation fault in the compiler. A worker
# that runs the whole suite compiles more programs than fit in, so it drops them when it has this many.
MAPS_TO_KEEP = 30_000


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep a file's tests, which share what is compiled, in one worker; tutorials share nothing, and begin first.

    The tutorials are the longest tests. One that began last would keep one worker busy while the other has nothing.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.name if _is_tutorial(item) else item.path.stem))
    items.sort(key=lambda item: not _is_tutorial(item))


def _is_tutorial(item):
    return item.path.name == "test_tutorials.py"


@pytest.fixture(autouse=True, scope="module")
def _memory_maps():
    """Drop what is compiled when a worker comes near the limit of memory maps; each file counts its own shapes."""
    read._dropped.clear()
    yield
    if memory_maps() > MAPS_TO_KEEP:
        read.forget_programs()
        jax.clear_caches()
        gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Fail the tests that are left when the time of CI (HIERAX_TEST_UNTIL, seconds since 1970) is over."""
    until = os.environ.get("HIERAX_TEST_UNTIL")
    if until and time.time() > float(until):
        pytest.fail("This test did not run, because the time that CI has was over.", pytrace=False)


@pytest.fixture(scope="session")
def theo_pop():
    return zoo.theophylline_population()


@pytest.fixture(scope="session")
def theo_fit(theo_pop):
    return hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), progress=False)


@pytest.fixture(scope="session")
def sleep_pop():
    return hx.read_nonmem(hx.datasets.load("sleepstudy"))
