"""A checkpoint is of one fit, is written or said not to be, and harms neither the fit nor anybody's file."""

import dataclasses
import json
import os
import socket
import threading
import zipfile

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import zoo
from linear_normal import linear, linear_population

import hierax as hx
from hierax.infer.run.checkpoint import Checkpoint
from hierax.infer.run.owner import differences, option_parts, owner, population_parts
from hierax.infer.search.options import QuasiNewton

FO = hx.FO(optimiser=QuasiNewton(max_iter=2))
pytestmark = pytest.mark.filterwarnings("ignore:The fit did not converge")


@pytest.fixture(scope="module")
def pop():
    return zoo.wang_population()


def fit(pop, file, model=zoo.wang_additive, estimator=FO, **options):
    return hx.fit(model, pop, estimator, progress=False, checkpoint=file, **options)


@pytest.fixture(scope="module")
def written(pop, tmp_path_factory):
    """Return the bytes of a checkpoint."""
    file = tmp_path_factory.mktemp("checkpoint") / "fit.ckpt"
    fit(pop, file)
    return file.read_bytes()


@pytest.fixture
def file(written, tmp_path):
    path = tmp_path / "fit.ckpt"
    path.write_bytes(written)
    return path


def test_another_program_of_the_same_names(pop, file):
    with pytest.raises(
        ValueError, match=r"another fit.s, because these differ: program \(.*digest \w+ there, \w+ here\)"
    ):
        fit(pop, file, model=zoo.wang_proportional)


def nocb(values):
    frame = zoo.wang_population().to_frame().assign(WT=values)
    return hx.read_nonmem(frame, covariates=["WT"], interpolation="nocb")


def test_every_part_of_the_data_is_named(pop):
    weights = np.linspace(50.0, 90.0, 20)
    first = nocb(weights)
    changed = {
        "interpolation": dataclasses.replace(first, interpolation="locf"),
        "covariates": nocb(weights + 1),
        "ids": dataclasses.replace(first, ids=tuple(f"p{one}" for one in first.ids)),
        "observations": first.with_dv(dv=np.asarray(first.dv["dv"]) + 1.0),
        "with_data arrays": first.with_data(x=np.ones(first.n_subjects)),
    }
    for name, other in changed.items():
        found = differences(population_parts(first), population_parts(other))
        assert any(text.startswith(name) for text in found), (name, found)
    renamed = dataclasses.replace(first, covariates={"BW": first.covariates["WT"]})
    assert "covariate names (['WT'] there, ['BW'] here)" in differences(
        population_parts(first), population_parts(renamed)
    )


def test_values_of_priors_are_part_of_it(pop):
    program = hx.program(zoo.wang_additive, pop).program
    tight, wide = (owner(program, pop, {"rate": dist.LogNormal(0.0, scale)}) for scale in (0.05, 5.0))
    assert [text.split(" (")[0] for text in differences(tight, wide)] == ["prior of rate"]
    assert "LogNormal(loc=0.0, scale=0.05)" in differences(tight, wide)[0]
    assert not differences(tight, owner(program, pop, {"rate": dist.LogNormal(0.0, 0.05)}))


def test_priors_of_the_program_itself_are_part_of_it(pop):
    def model(scale):
        def program(pop):
            sd = numpyro.sample("sd", dist.HalfNormal(scale))
            with numpyro.plate("subject", pop.n_subjects, dim=-2):
                eta = numpyro.sample("eta", dist.Normal(0.0, sd))
                hx.observe("dv", dist.Normal(9.0 + eta + 0.0 * pop.times, 1.0), pop)

        return program

    one, two, again = (owner(hx.program(model(s), pop).program, pop, {}) for s in (1.0, 2.0, 1.0))
    assert [text.split(" (")[0] for text in differences(one, two)] == ["program"]
    assert one == again


def test_start_values_in_the_program_are_no_other_program(pop):
    def model(start):
        def program(pop):
            base = numpyro.param("base", jnp.sqrt(start))
            with numpyro.plate("subject", pop.n_subjects, dim=-2):
                eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
                hx.observe("dv", dist.Normal(base + eta + 0.0 * pop.times, 1.0), pop)

        return program

    one, two = (owner(hx.program(model(s), pop).program, pop, {}) for s in (4.0, 9.0))
    assert one == two


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        (hx.SAEM(optimiser=optax.adam(1e-1)), hx.SAEM(optimiser=optax.adam(1e-5)), "step_size"),
        (hx.FOCE(), hx.FOCE(interaction=False), "interaction"),
        (hx.VI(guide=hx.guides.Normal()), hx.VI(guide=hx.guides.Sinh()), "guide"),
    ],
)
def test_options_are_part_of_it(first, second, place):
    found = differences(option_parts(first, "estimator"), option_parts(second, "estimator"))
    assert any(place in text for text in found), found


def test_another_prior_is_refused_and_not_gone_on_with(tmp_path):
    """The estimate under the second prior is the one of a fit that has never seen the file."""
    pop, file = linear_population(np.random.default_rng(0).normal(1.0, 1.0, (6, 3))), tmp_path / "map.ckpt"
    tight, loose = ({"mu": dist.Normal(loc, 0.05)} for loc in (1.0, 3.0))
    first = fit(pop, file, linear, hx.MAP(), priors=tight)
    assert first.params["mu"] == pytest.approx(1.0, abs=0.2)
    with pytest.raises(ValueError, match=r"prior of mu \(Normal\(loc=1.0, scale=0.05\)"):
        fit(pop, file, linear, hx.MAP(), priors=loose)
    assert fit(pop, tmp_path / "other.ckpt", linear, hx.MAP(), priors=loose).params["mu"] > 2.5


@pytest.mark.parametrize("content", [b"", b"a study's notes", None, "cut"])
@pytest.mark.parametrize("resume", [True, False])
def test_what_is_no_checkpoint_is_left_alone(pop, file, content, resume):
    if content is None:
        with zipfile.ZipFile(file, "w") as other:
            other.writestr("something.txt", "else")
    else:
        file.write_bytes(file.read_bytes()[:-200] if content == "cut" else content)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"fit.ckpt is not a checkpoint of Hierax, or it is damaged \(.*Pass another"):
        fit(pop, file, resume=resume)
    assert file.read_bytes() == before


def test_a_flipped_byte_is_damage(pop, file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is not a checkpoint of Hierax, or it is damaged"):
        fit(pop, file)


def test_resume_false_writes_over_a_checkpoint(pop, file):
    fit(pop, file, model=zoo.wang_proportional, resume=False)
    assert fit(pop, file, model=zoo.wang_proportional).result is hx.Result.max_iterations


def test_the_path_is_tried_before_any_work(pop, tmp_path):
    def never(pop):
        raise AssertionError("the program was read")

    for path, text in [
        (tmp_path / "nosuchdir" / "ck", "the folder .*nosuchdir does not exist"),
        (tmp_path, "a folder"),
    ]:
        with pytest.raises(ValueError, match=text):
            fit(pop, path, model=never)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_checkpoint_and_not_the_fit(pop, tmp_path, monkeypatch):
    import hierax.infer.run.checkpoint as module

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_archive", full)
    with pytest.warns(
        hx.HieraxWarning, match=r"cannot be written \(No space left on device\), and the fit goes on"
    ) as told:
        found = fit(pop, tmp_path / "fit.ckpt", every=0.0)
    assert sum("cannot be written" in str(one.message) for one in told) == 1
    assert np.array_equal(found.flat, hx.fit(zoo.wang_additive, pop, FO, progress=False).flat)


def test_a_failed_writing_leaves_the_last_state(pop, file, monkeypatch):
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.warns(hx.HieraxWarning, match="cannot be written"):
        Checkpoint(file).save({"x": np.zeros(3)})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_fit_that_holds_the_path_is_named(pop, file):
    lock = file.with_name(file.name + ".lock")
    with Checkpoint(file).held():
        with pytest.raises(ValueError, match=f"is held by process {os.getpid()} on {socket.gethostname()} since"):
            fit(pop, file)
    assert not lock.exists()
    # A process that was killed holds nothing, and neither does a lock that says nothing.
    lock.write_text(json.dumps({"host": socket.gethostname(), "process": 2**22 + 1, "since": "then"}))
    fit(pop, file)
    lock.write_text("")
    fit(pop, file)
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "then"}))
    with pytest.raises(ValueError, match="held by process 1 on elsewhere since then"):
        fit(pop, file)


def test_writers_at_the_same_time_do_not_share_a_part(tmp_path):
    """Whoever is last wins; nobody finds the other's half-written file."""
    file = tmp_path / "fit.ckpt"

    def write(value):
        for _ in range(20):
            Checkpoint(file).save({"x": np.full(1000, value)})

    threads = [threading.Thread(target=write, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saved = Checkpoint(file).load({"x": np.zeros(1000)})["x"]
    assert len(np.unique(saved)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_that_unpacks_to_far_more_than_it_is(pop, tmp_path):
    bomb = tmp_path / "bomb"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fit.json", "{}")
        with file.open("arrays.npz", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"MiB would unpack to 0.3 GiB"):
        hx.load_fit(bomb, zoo.wang_additive, pop)
