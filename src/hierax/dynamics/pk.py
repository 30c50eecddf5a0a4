"""The structural models of pharmacokinetics, and curves of effect on top of them, as ``hx.pk``."""

from hierax.dynamics.closed_form import one_compartment, three_compartment, two_compartment
from hierax.dynamics.effects import emax, hill

__all__ = ["emax", "hill", "one_compartment", "three_compartment", "two_compartment"]
