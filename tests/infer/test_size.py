"""Memory and cost at many subjects, in a process of its own."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys, time
import numpy as np, zoo, numpyro, jax
from memory import peak_gigabytes
numpyro.enable_x64()
import hierax as hx
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout
size = int(sys.argv[1])
pop = zoo.theophylline_population()[np.tile(np.arange(12), size // 12)]
program = hx.program(zoo.theophylline, pop).program
session = Session(program, hx.FOCE(), pop, layout(program))
flat = session.layout.start(None)
out = session.evaluate(flat)
seconds = []
for sign in (1, -1, 1):
    start = time.perf_counter()
    out = session.evaluate(flat + 0.01 * sign, out.eta)
    seconds.append(time.perf_counter() - start)
value = float(np.asarray(session.evaluate(flat).value).sum()) * 2 * 12 / size
print(json.dumps({"value": value, "gigabytes": peak_gigabytes(), "seconds": min(seconds)}))
"""


def run(size):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(size)], capture_output=True, text=True, cwd="tests", check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_twelve_thousand_subjects_stay_below_two_gigabytes():
    small, large = run(1200), run(12000)
    assert large["value"] == pytest.approx(376.165658, abs=1e-4)
    assert large["gigabytes"] < 2
    # Ten times the subjects: memory beyond the libraries' own (half a gigabyte) grows no faster than they do.
    assert large["gigabytes"] - 0.5 < 10 * max(small["gigabytes"] - 0.5, 0.1)
