"""The program as functions of population parameters and random effects: log densities of every subject."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.program.checking.survey import unwrap
from hierax.program.families import Family, find_family
from hierax.program.sites import Sites
from hierax.program.trace import Model, Run, per_subject, run_program, site_log_prob

Params = Mapping[str, Any]
Effects = Float[Array, "subject coordinate"]


@dataclasses.dataclass(frozen=True)
class Observed:
    """An observed site, prepared for formulas of the Fisher information.

    ``parameters`` have the full shape of the site, and ``axis`` is the axis of subjects. ``value`` is the observation
    in the space of ``family``, and ``log_det`` the log derivative of the observation with respect to it.
    """

    family: Family
    parameters: tuple[Array, ...]
    mask: Any
    axis: int
    value: Array
    scale: Any
    log_det: Array
    batch_ndim: int

    def spread_scale(self, ndim: int) -> Array:
        """Return the scale of the site (by ``handlers.scale``), with further trailing axes up to ``ndim`` axes."""
        scale = jnp.asarray(1.0 if self.scale is None else self.scale)
        return scale.reshape(scale.shape + (1,) * (ndim - self.batch_ndim)) if scale.ndim else scale


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A parsed NumPyro program, such as ``hx.program(model, pop).program``.

    Attributes
    ----------
    sites : Sites
        The sites by class, with shapes, constraints, priors and starts.
    effect_names : tuple of str
        Names of the random-effect coordinates, in the order of the last axis of ``eta``.
    parts : dict
        What the model was made of when it was read; see ``hierax.program.identity``.
    built : dict
        Functions that were compiled for the program, by key; they are freed together with it.
    models : list
        Functions that are the same program (after a model was defined again, say); ``model`` is the last one read.
    """

    model: Model
    sites: Sites
    plate: str = "subject"
    parts: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    built: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    models: list[Model] = dataclasses.field(default_factory=list, repr=False)

    @property
    def effect_names(self) -> tuple[str, ...]:
        """Names of the random-effect coordinates."""
        return self.sites.effect_names

    # -- population parameters -----------------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """Return the program's own start values, constrained."""
        return {name: site.start for name, site in self.sites.population.items()}

    def unconstrain(self, params: Params) -> dict[str, Any]:
        """Map constrained population parameters to unconstrained space."""
        return {
            name: params[name] if site.kind == "weights" else site.transform.inv(jnp.asarray(params[name], float))
            for name, site in self.sites.population.items()
        }

    def constrain(self, free: Params) -> dict[str, Any]:
        """Map unconstrained population parameters to constrained ones."""
        return {
            name: free[name] if site.kind == "weights" else site.transform(free[name])
            for name, site in self.sites.population.items()
        }

    # -- runs ----------------------------------------------------------------------------------------------------

    def run(
        self,
        pop: Population,
        params: Params,
        eta: Effects | None,
        stop: bool = False,
        held: Mapping[str, Array] | None = None,
    ) -> Run:
        """Run the program; ``eta`` of shape (subject, coordinate), or None for the reference point.

        ``stop`` ends the run after the last random effect. ``held`` fixes values of random effects behind flows, whose
        coordinates then follow from these values.
        """
        effects = None if eta is None else self.split(eta)
        stop_after = self.sites.last_effect if stop else None
        return run_program(self.model, pop, params, effects, plate=self.plate, stop_after=stop_after, held=held)

    def split(self, eta: Effects) -> dict[str, Array]:
        """Split flat coordinates into those of each site."""
        out, start = {}, 0
        for name, site in self.sites.effects.items():
            out[name] = site.unflatten(eta[:, start : start + site.size])
            start += site.size
        return out

    def reference(self, pop: Population, params: Params) -> Effects:
        """Return the reference point of the random effects, (subject, coordinate)."""
        return self._flat(self.run(pop, params, None, stop=True), lambda c: c.location(), pop)

    def prior_scale(self, pop: Population, params: Params, eta: Effects) -> Effects:
        """Return the prior SD of every coordinate, (subject, coordinate)."""
        return self._flat(self.run(pop, params, eta, stop=True), lambda c: c.scale(), pop)

    def prior_root(self, pop: Population, params: Params, eta: Effects) -> Float[Array, "subject coordinate normal"]:
        """Return R_i with Ω_i = R_i R_iᵀ, (subject, coordinate, coordinate); inactive coordinates stay standard normal.

        Where a site is not Gaussian, R_i is diagonal with the prior SDs.
        """
        run = self.run(pop, params, eta, stop=True)
        size = len(self.effect_names)

        def column(seed: Array) -> Effects:
            normals = self.split(jnp.broadcast_to(seed, (pop.n_subjects, size)))
            sites = self.sites.effects.items()
            parts = [site.flatten(run.coordinates[name].root(normals[name])) for name, site in sites]
            return jnp.concatenate(parts, axis=-1)

        columns = jax.vmap(column, out_axes=-1)(jnp.eye(size)) if size else jnp.zeros((pop.n_subjects, 0, 0))
        idle = ~self.active(pop, params)
        return jnp.where(idle[:, :, None] | idle[:, None, :], jnp.eye(size), columns)

    @property
    def flows(self) -> tuple[str, ...]:
        """Names of the random effects whose values are made by flows."""
        return tuple(name for name, site in self.sites.effects.items() if site.flow)

    def behind_flows(self, pop: Population, params: Params, eta: Effects) -> dict[str, Array]:
        """Return the values of the random effects that flows make."""
        run = self.run(pop, params, eta, stop=True)
        return {name: run.messages[name]["value"] for name in self.flows}

    def carried(
        self, pop: Population, params: Params, eta: Effects, held: Mapping[str, Array]
    ) -> tuple[Effects, Float[Array, " subject"]]:
        """Return the coordinates that belong to held values of random effects, and log |d value/dη|, (subject,).

        The coordinates of random effects that are not held are those of ``eta``. While the values are held, a change of
        a flow's weights changes the coordinates, but not the density of the data.
        """
        run = self.run(pop, params, eta, stop=True, held=held)
        parts = [site.flatten(run.z[name]) for name, site in self.sites.effects.items()]
        return jnp.concatenate(parts, axis=-1), self._log_det(run, pop)

    def invertible(self, pop: Population) -> bool:
        """Return whether all flows have an inverse, so that their values can be held; block neural flows have none."""

        def there_and_back(eta: Effects) -> Effects:
            params = self.start()
            return self.carried(pop, params, eta, self.behind_flows(pop, params, eta))[0]

        try:
            jax.eval_shape(there_and_back, jnp.zeros((pop.n_subjects, len(self.effect_names))))
        except NotImplementedError:
            return False
        return True

    def _log_det(self, run: Run, pop: Population) -> Float[Array, " subject"]:
        """Return log |d value/dη| of the random effects whose values were held."""
        total = jnp.zeros(pop.n_subjects)
        for name, log_det in run.log_det.items():
            site, coordinate = self.sites.effects[name], run.coordinates[name]
            dim = site.axis - (len(site.shape) - coordinate.event_dim)
            keep = True if coordinate.mask is None else coordinate.mask
            total = total + per_subject(jnp.where(keep, log_det, 0.0), dim, pop.n_subjects)
        return total

    def log_joint_of_values(
        self, pop: Population, params: Params, eta: Effects, held: Mapping[str, Array], *, prior_alone: bool = False
    ) -> Float[Array, " subject"]:
        """Return the log density of data, held values and the coordinates that are not held, (subject,).

        ``prior_alone`` leaves out the data.
        """
        run = self.run(pop, params, eta, stop=prior_alone, held=held)
        total = self.log_prior(pop, params, eta, run) - self._log_det(run, pop)
        return total if prior_alone else total + self.log_data(pop, run)

    def active(self, pop: Population, params: Params) -> Array:
        """Return which coordinates are neither masked out by the program nor padding, (subject, coordinate)."""

        def read(coordinate: Any) -> Array:
            mask = jnp.ones((), bool) if coordinate.mask is None else coordinate.mask
            batch = coordinate.shape[: len(coordinate.shape) - coordinate.event_dim]
            wide = jnp.broadcast_to(mask, batch).reshape(batch + (1,) * coordinate.event_dim)
            return jnp.broadcast_to(wide, coordinate.shape)

        return self._flat(self.run(pop, params, None, stop=True), read, pop) & jnp.asarray(pop.subject_mask)[:, None]

    def _flat(self, run: Run, read: Any, pop: Population) -> Array:
        parts = [site.flatten(read(run.coordinates[name])) for name, site in self.sites.effects.items()]
        return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((pop.n_subjects, 0))

    # -- densities -----------------------------------------------------------------------------------------------

    def log_prior(
        self, pop: Population, params: Params, eta: Effects, run: Run | None = None, only: str | None = None
    ) -> Array:
        """Return the log density of the random effects in their working coordinates, (subject,).

        ``only`` restricts it to one site. Coordinates that the program masks out, and all those of padded subjects,
        count as standard normal: they integrate to one, and do not change the marginal likelihood.
        """
        run = self.run(pop, params, eta, stop=True) if run is None else run
        total = jnp.zeros(pop.n_subjects)
        real = jnp.asarray(pop.subject_mask)
        for name, site in self.sites.effects.items():
            if only not in (None, name):
                continue
            coordinate, z = run.coordinates[name], run.z[name]
            density = coordinate.log_prob(z)
            dim = site.axis - (len(site.shape) - coordinate.event_dim)
            keep = real.reshape((-1,) + (1,) * (-dim - 1))
            if coordinate.mask is not None:
                keep = keep & coordinate.mask
            keep = jnp.broadcast_to(keep, density.shape)
            free = keep.reshape(keep.shape + (1,) * coordinate.event_dim)
            idle = jnp.where(free, 0.0, -0.5 * z**2 - 0.5 * np.log(2 * np.pi))
            idle = idle.sum(tuple(range(-coordinate.event_dim, 0))) if coordinate.event_dim else idle
            scaled = site_log_prob(run.messages[name], density)
            total = total + per_subject(jnp.where(keep, scaled, idle), dim, pop.n_subjects)
        return total

    def log_data(
        self,
        pop: Population,
        run: Run,
        frozen: Mapping[str, Array] | None = None,
        located: Mapping[str, Array] | None = None,
    ) -> Array:
        """Return the log density of the data given the random effects, (subject,).

        ``frozen`` scales and ``located`` locations replace those of the program, by site.
        """
        total = jnp.zeros(pop.n_subjects)
        for name, site in self.sites.data.items():
            msg = run.messages[name]
            density = None
            if frozen is not None or located is not None:
                seen = self.observed(run, name)
                assert seen is not None
                assert seen.family.log_prob is not None
                loc, scale = seen.parameters[:2]
                parameters = ((located or {}).get(name, loc), (frozen or {}).get(name, scale))
                density = seen.family.log_prob(parameters, seen.value) - seen.log_det
                density = density if seen.mask is None else jnp.where(seen.mask, density, 0.0)
                # The family's density still has the event axes of an Independent; a site's density is summed over them.
                density = density.reshape(*density.shape[: len(msg["fn"].batch_shape)], -1).sum(-1)
            total = total + per_subject(site_log_prob(msg, density), site.dim, pop.n_subjects)
        for name in self.sites.odes:
            # A subject whose ODE solve failed has density 0, since its predictions (NaN, mostly) mean nothing.
            total = jnp.where(run.messages[name]["value"].code == 0, total, -jnp.inf)
        return jnp.where(jnp.asarray(pop.subject_mask), total, 0.0)

    def log_joint(
        self, pop: Population, params: Params, eta: Effects, frozen: Mapping[str, Array] | None = None
    ) -> Array:
        """Return the log density of data and of random effects in their working coordinates, (subject,)."""
        run = self.run(pop, params, eta)
        return self.log_prior(pop, params, eta, run) + self.log_data(pop, run, frozen)

    def log_density(self, pop: Population, params: Params, eta: Effects) -> Array:
        """Return the log density of data and random effects of every subject, (subject,).

        Parameters
        ----------
        pop : Population
        params : dict
            Population parameters, constrained.
        eta : array, (subject, coordinate)
            Random effects in their working coordinates, named by ``effect_names``.
        """
        return self.log_joint(pop, params, eta)

    # -- information ---------------------------------------------------------------------------------------------

    def observed(self, run: Run, name: str) -> Observed | None:
        """Return an observed site's family and parameters, or None where it has no information formula."""
        msg, site = run.messages[name], self.sites.data[name]
        mask, fn = unwrap(msg["fn"])
        fn, value, log_det = untransform(fn, msg["value"])
        family = None if site.factor else find_family(fn)
        if family is None:
            return None
        full = tuple(msg["fn"].batch_shape) + tuple(msg["fn"].event_shape)
        own = len(fn.event_shape)
        values = []
        for parameter, event in zip(family.parameters(fn), family.event, strict=True):
            batch = full[: len(full) - own]
            part = jnp.asarray(parameter)
            values.append(jnp.broadcast_to(part, batch + part.shape[part.ndim - event :]))
        if mask is not None:
            elements = full[: len(full) - own]
            mask = jnp.broadcast_to(_expand_right(mask, len(elements)), elements)
        axis = len(msg["fn"].batch_shape) + site.dim
        return Observed(family, tuple(values), mask, axis, value, msg["scale"], log_det, len(msg["fn"].batch_shape))


def untransform(fn: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return an observation without elementwise transforms: base distribution, value in its space, log|dy/dx|."""
    log_det = jnp.zeros(())
    while type(fn) is dist.TransformedDistribution and not fn.event_shape:
        for transform in reversed(fn.transforms):
            inner = transform.inv(value)
            log_det = log_det + transform.log_abs_det_jacobian(inner, value)
            value = inner
        fn = unwrap(fn.base_dist)[1]
    return fn, value, log_det


def _expand_right(mask: Any, ndim: int) -> Array:
    mask = jnp.asarray(mask)
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))
