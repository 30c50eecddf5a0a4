"""The structural models of pharmacokinetics, as ``hx.pk``."""

from hierax.dynamics.closed_form import one_compartment, three_compartment, two_compartment

__all__ = ["one_compartment", "three_compartment", "two_compartment"]
