"""What estimators ask of a program, as refusals in words."""

from __future__ import annotations

from hierax.program.density import Program, unwrap
from hierax.program.families import FAMILIES, find_family

GAUSSIAN = ("Normal", "LogNormal", "MultivariateNormal")


def need_families(program: Program, estimator: str) -> list[str]:
    """Ask for an information formula at every observed site."""
    found = []
    for name, site in program.sites.data.items():
        if site.factor:
            found.append(
                f"{estimator} cannot use factor '{name}', because a bare log density has no Fisher information. "
                f"Use Laplace(), which takes its second derivatives."
            )
        elif find_family(unwrap(program.sites.messages[name]["fn"])[1]) is None:
            known = sorted({family.name for _, family in FAMILIES})
            found.append(
                f"{estimator} cannot use the data site '{name}' ({site.distribution}), because its Fisher information "
                f"has no closed form here; it knows {known}. Use Laplace(), which takes second derivatives."
            )
    return found


def need_gaussian_data(program: Program, estimator: str) -> list[str]:
    """Ask for Gaussian (or log-normal) data, whose scale can be frozen."""
    return need_families(program, estimator) + [
        f"{estimator} cannot use the data site '{name}' ({site.distribution}), because it has no location and scale "
        f"to take apart; it treats {list(GAUSSIAN)}. Use FOCE() or Laplace()."
        for name, site in program.sites.data.items()
        if not site.factor and site.distribution not in GAUSSIAN
    ]


def need_gaussian_effects(program: Program, estimator: str) -> list[str]:
    """Ask for random effects that are Gaussian in their working coordinates."""
    return [
        f"{estimator} cannot use random effect '{name}' ({site.distribution}), because it linearises around Gaussian "
        f"random effects. Use FOCE(), Laplace() or AGQ()."
        for name, site in program.sites.effects.items()
        if not site.gaussian
    ]
