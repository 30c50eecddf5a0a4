"""The structural models of pharmacokinetics, and curves of effect on top of them, as ``hx.pk``."""

from hierax.dynamics.effects import emax, hill, inhibition
from hierax.dynamics.linear.closed_form import one_compartment, three_compartment, two_compartment

__all__ = ["emax", "hill", "inhibition", "one_compartment", "three_compartment", "two_compartment"]
