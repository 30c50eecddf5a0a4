"""Population parameters as one flat vector: its layout, its names, and what of it is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hierax.arguments import mapping
from hierax.program.density import Program
from hierax.program.sites import PopulationSite

Fixed = Sequence[str] | Mapping[str, Any] | None
# The largest unconstrained entry of a correlation matrix in a search: tanh(10) is 1 − 4e-9. See ``Layout.limits``.
_FARTHEST_CORRELATION = 10.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every site lies in the flat unconstrained vector.

    Attributes
    ----------
    slices : dict
        Site → its slice.
    unravel : callable
        Flat vector → dict of unconstrained values.
    size : int
        Length of the vector.
    """

    program: Program
    slices: dict[str, slice]
    unravel: Callable[[Array], dict[str, Any]]
    size: int

    def params(self, flat: Any) -> dict[str, Any]:
        """Return constrained parameters as NumPy values."""
        return jax.tree.map(np.asarray, self.program.constrain(self.unravel(jnp.asarray(flat))))

    def flat(self, params: Mapping[str, Any]) -> np.ndarray:
        """Return the flat unconstrained vector of constrained parameters."""
        return np.asarray(jax.flatten_util.ravel_pytree(self.program.unconstrain(params))[0])

    def weights(self) -> np.ndarray:
        """Return which entries are network weights, (parameter,)."""
        out = np.zeros(self.size, bool)
        for name, site in self.program.sites.population.items():
            if is_weight(self.program, site):
                out[self.slices[name]] = True
        return out

    def joint(self) -> np.ndarray:
        """Return which entries can only be interpreted together: of networks, matrices, simplexes; (parameter,)."""
        out = np.zeros(self.size, bool)
        for name, site in self.program.sites.population.items():
            out[self.slices[name]] = is_weight(self.program, site) or not elementwise(site)
        return out

    def bounded(self) -> np.ndarray:
        """Return which entries reach a bound of their parameter only at infinity, (parameter,): logarithms, logits, ...

        Of covariance matrices, these are the logarithms on the diagonal of the Cholesky factor; of correlation
        matrices, all entries.
        """
        out = np.zeros(self.size, bool)
        for name, site in self.program.sites.population.items():
            if site.kind != "weights" and site.constraint != "Real":
                out[self.slices[name]] = elementwise(site)
        return out | self.matrices()

    def matrices(self) -> np.ndarray:
        """Return which of the entries that :meth:`bounded` describes belong to matrices, (parameter,)."""
        out = np.zeros(self.size, bool)
        for name, site in self.program.sites.population.items():
            place = self.slices[name]
            if site.constraint in ("CorrCholesky", "CorrMatrix"):
                out[place] = True
            elif site.constraint in ("PositiveDefinite", "LowerCholesky"):
                # NumPyro puts the diagonal last.
                out[place.stop - site.shape[-1] : place.stop] = True
        return out

    def limits(self) -> np.ndarray:
        """Return the largest absolute value that each unconstrained entry may take in a search, (parameter,).

        Entries of correlation matrices have a limit. The factor of a correlation matrix contains √(1 − r²), and where r
        is closer to ±1 than about 1e-8 the rounding error of that root makes the objective lower than it really is.
        """
        out = np.full(self.size, np.inf)
        for name, site in self.program.sites.population.items():
            if site.constraint in ("CorrCholesky", "CorrMatrix"):
                out[self.slices[name]] = _FARTHEST_CORRELATION
        return out

    def free(self, fixed: Fixed) -> np.ndarray:
        """Return which entries may vary, (parameter,), given sites or elementwise masks to hold.

        Raises
        ------
        ValueError
            An unknown site, a mask of another shape, or a mask on a matrix that cannot be held in part.
        """
        fixed = [fixed] if isinstance(fixed, str) else fixed
        masks = dict(fixed) if isinstance(fixed, Mapping) else {name: True for name in fixed or ()}
        free = np.ones(self.size, bool)
        for name, mask in masks.items():
            site = self._site(name, "fixed")
            width = self.slices[name].stop - self.slices[name].start
            if np.asarray(mask).dtype != bool and not (np.ndim(mask) and np.isin(mask, (0, 1)).all()):
                raise ValueError(
                    f"fixed={{'{name}': {mask!r}}} must be a mask of True and False. To hold {name} at that value, "
                    f"pass fixed=['{name}'] and init={{'{name}': {mask!r}}}."
                )
            mask = np.asarray(mask, bool)
            if mask.ndim and (mask.shape != site.shape or not elementwise(site)):
                reason = (
                    f"the site has shape {site.shape}" if elementwise(site) else "its elements depend on one another"
                )
                raise ValueError(
                    f"fixed={{'{name}': mask of shape {mask.shape}}} is refused, because {reason}. "
                    f"Give a mask of the site's shape, or fix the whole site."
                )
            free[self.slices[name]] &= ~np.broadcast_to(mask.ravel() if mask.ndim else mask, (width,))
        return free

    def start(self, init: Mapping[str, Any] | None) -> np.ndarray:
        """Return the flat start: ``init``, else a param's own value, else the prior's median.

        Raises
        ------
        ValueError
            An unknown site, another shape, or a value outside the constraint.
        """
        start = self.program.start()
        for name, value in mapping("init", init, "names of population parameters to their starts").items():
            site = self._site(name, "init")
            if site.kind != "weights":
                value = _numbers(name, value)
                if value.shape != site.shape:
                    raise ValueError(
                        f"init['{name}'] has shape {value.shape}, but the site has shape {site.shape}. "
                        f"Give a value of that shape."
                    )
            start[name] = value
        flat = self.flat(start)
        for name, site in self.program.sites.population.items():
            if not np.isfinite(flat[self.slices[name]]).all():
                raise ValueError(
                    f"The start of '{name}', {start[name]}, is outside its constraint ({site.constraint}) or on its "
                    f"boundary, so that it is not finite on the unconstrained scale. Give a value inside the "
                    f"constraint."
                )
        return flat

    def names(self) -> list[str]:
        """Return names of the unconstrained entries: those of the elements where a site is elementwise.

        Covariance matrices are named by the entries of their Cholesky factor (logarithms on its diagonal), correlation
        matrices by the partial correlations that determine them.
        """
        out = []
        for name in self.slices:
            site = self.program.sites.population[name]
            width = self.slices[name].stop - self.slices[name].start
            if elementwise(site) and site.kind != "weights":
                out += element_names(name, site.shape)
            else:
                out += coordinate_names(name, site, width)
        return out

    def natural(self, flats: Any) -> np.ndarray:
        """Return flat vectors (draw, parameter) with elementwise sites constrained and all others unconstrained."""

        def values(flat: Array) -> Array:
            free = self.unravel(flat)
            shown = {
                name: site.transform(free[name]) if site.kind != "weights" and elementwise(site) else free[name]
                for name, site in self.program.sites.population.items()
            }
            return jax.flatten_util.ravel_pytree(shown)[0]

        # These few elementwise operations are not compiled, because compiling them for every fit would take longer.
        return np.asarray(jax.vmap(values)(jnp.asarray(flats)))

    def from_natural(self, values: Any) -> np.ndarray:
        """Return flat unconstrained vectors (draw, parameter) of values that :meth:`natural` has returned."""
        out = np.array(values, float)
        for name, place in self.slices.items():
            site = self.program.sites.population[name]
            if site.kind != "weights" and elementwise(site):
                given = jnp.asarray(out[:, place]).reshape(-1, *site.shape)
                out[:, place] = np.asarray(jax.vmap(site.transform.inv)(given)).reshape(len(out), -1)
        return out

    def _site(self, name: str, argument: str) -> PopulationSite:
        if name not in self.program.sites.population:
            raise ValueError(
                f"{argument} names the site '{name}', which the program does not have. Its population parameters are "
                f"{list(self.program.sites.population)}."
            )
        return self.program.sites.population[name]


def layout(program: Program) -> Layout:
    """Return the layout of a program's population parameters."""
    free = program.unconstrain(program.start())
    flat, unravel = jax.flatten_util.ravel_pytree(free)
    slices, start = {}, 0
    for name in sorted(free):
        width = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(free[name]))
        slices[name] = slice(start, start + width)
        start += width
    return Layout(program, slices, unravel, int(flat.size))


def elementwise(site: PopulationSite) -> bool:
    """Return whether each constrained element depends on one unconstrained entry alone."""
    transform = site.transform
    while hasattr(transform, "base_transform"):
        transform = transform.base_transform
    return site.kind == "weights" or (transform.domain.event_dim == 0 and transform.codomain.event_dim == 0)


def is_weight(program: Program, site: PopulationSite) -> bool:
    """Return whether a site holds network weights: ``name$params``, or a tensor that random_flax_module sampled."""
    module = site.name.split("/")[0]
    return site.kind == "weights" or ("/" in site.name and f"{module}$params" in program.sites.messages)


def element_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return ``name``, or ``name[0]``, ``name[1]``, ... in row-major order."""
    if not shape:
        return [name]
    return [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]


def coordinate_names(name: str, site: PopulationSite, width: int) -> list[str]:
    """Return names of the unconstrained entries of a site that is not elementwise."""
    square = len(site.shape) == 2 and site.shape[0] == site.shape[1]
    below = np.argwhere(np.tril(np.ones(site.shape), -1)) if square else []
    if square and site.constraint in ("PositiveDefinite", "LowerCholesky"):
        # NumPyro puts the diagonal last.
        factor = name if site.constraint == "LowerCholesky" else f"chol({name})"
        diagonal = [f"log {factor}[{row},{row}]" for row in range(site.shape[0])]
        return [*(f"{factor}[{row},{column}]" for row, column in below), *diagonal]
    if square and site.constraint in ("CorrCholesky", "CorrMatrix"):
        return [f"atanh partial {name}[{row},{column}]" for row, column in below]
    return [f"{name}~{index}" for index in range(width)]


def _numbers(name: str, value: Any) -> np.ndarray:
    """Return a start value as an array of real numbers, or raise a ValueError."""
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"init['{name}'] is {value!r}, but must be a real number, or an array of real numbers.")
    return found.astype(float)
