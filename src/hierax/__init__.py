"""Hierax: nonlinear mixed-effects models as NumPyro programs."""

from hierax.api.fit import ebe as ebe
from hierax.api.fit import evaluate as evaluate
from hierax.api.fit import fit as fit
from hierax.data import datasets as datasets
from hierax.data.population import Population as Population
from hierax.data.read import read_nonmem as read_nonmem
from hierax.dynamics import pk as pk
from hierax.infer.first_order import FO as FO
from hierax.infer.first_order import NaivePooled as NaivePooled
from hierax.infer.laplace import FOCE as FOCE
from hierax.infer.laplace import Laplace as Laplace
from hierax.infer.quadrature import AGQ as AGQ
from hierax.program.observe import observe as observe
