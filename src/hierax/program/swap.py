"""Replacing the distribution of a random effect in a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from numpyro.primitives import Messenger

from hierax.data.population import Population
from hierax.errors import ModelError
from hierax.program.coordinates import unfold
from hierax.program.density import Program
from hierax.program.sites import EffectSite
from hierax.program.trace import Model


class _Swap(Messenger):
    """Gives a site another distribution, expanded to the plates that it is in."""

    def __init__(self, site: str, fn: dist.Distribution):
        super().__init__()
        self.site, self.fn = site, fn

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] == self.site:
            msg["fn"] = self.fn.expand(msg["fn"].batch_shape)


def swapped(model: Model, site: str, build: Callable[[Population], dist.Distribution]) -> Model:
    """Return the program whose random effect ``site`` has the distribution that ``build(pop)`` returns.

    ``build`` runs above the subject plate, where networks register their weights; its batch shape is () or
    (subject, 1).
    """

    def program(pop: Population) -> Any:
        fn = build(pop)
        with _Swap(site, fn):
            return model(pop)

    return program


def swappable(program: Program, site: str | None) -> EffectSite:
    """Return the random effect whose distribution is to be learned.

    Raises
    ------
    ValueError
        There is no such site, or ``site`` must name one of several.
    ModelError
        The site has other plates beside the subjects', or is not a vector.
    """
    effects = program.sites.effects
    if site is None and len(effects) != 1:
        raise ValueError(f"The program has the random effects {list(effects)}. Say which one to learn with site=.")
    name = next(iter(effects)) if site is None else site
    if name not in effects:
        raise ValueError(f"There is no random effect '{name}'. Name one of {list(effects)} with site=.")
    chosen = effects[name]
    if chosen.plates or len(chosen.shape) - chosen.axis != 3:
        raise ModelError(
            f"The distribution of '{name}' cannot be learned, because a distribution is learned of one vector per "
            f"subject, but this site has the shape {chosen.shape}. Write it as a vector: dist.Normal(0, "
            f"omega).to_event(1)."
        )
    return chosen


def outer_transforms(program: Program, site: str) -> list[Any]:
    """Return the transforms that lead from a random effect's working coordinates to its values.

    Raises
    ------
    ModelError
        The transforms depend on parameters, or the random effect has a bounded support.
    """
    transforms = unfold(program.sites.messages[site]["fn"])[-1]
    fixed = all(not transform.tree_flatten()[0] for transform in transforms)
    if program.sites.effects[site].label == "unconstrained" or not fixed:
        raise ModelError(
            f"The distribution of '{site}' cannot be replaced, because its coordinates depend on parameters or on its "
            f"bounds. Write it as Normal, MultivariateNormal or LogNormal, and transform its values in the program."
        )
    return transforms
