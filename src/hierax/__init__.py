"""Hierax: nonlinear mixed-effects models as NumPyro programs.

A model is a plain NumPyro function with a subject plate; every estimator, simulation and diagnostic reads that same
function. Start with ``hx.read_nonmem``, ``hx.check`` and ``hx.fit``.
"""

import importlib.metadata as _metadata

from hierax import nn as nn
from hierax.api.augment import Augmented as Augmented
from hierax.api.augment import augment as augment
from hierax.api.bootstrap import Bootstrap as Bootstrap
from hierax.api.bootstrap import bootstrap as bootstrap
from hierax.api.crossvalidation import Candidate as Candidate
from hierax.api.crossvalidation import CrossValidation as CrossValidation
from hierax.api.crossvalidation import cross_validate as cross_validate
from hierax.api.fit import ebe as ebe
from hierax.api.fit import evaluate as evaluate
from hierax.api.fit import fit as fit
from hierax.api.program import check as check
from hierax.api.program import program as program
from hierax.api.simulate import predict as predict
from hierax.api.simulate import simulate as simulate
from hierax.data import datasets as datasets
from hierax.data.events import Events as Events
from hierax.data.population import Population as Population
from hierax.data.read import read_nonmem as read_nonmem
from hierax.data.regimen import Regimen as Regimen
from hierax.data.regimen import Subject as Subject
from hierax.diagnose import plot as plot
from hierax.diagnose.citation import citation as citation
from hierax.diagnose.effects import covariate_effects as covariate_effects
from hierax.diagnose.report import report as report
from hierax.diagnose.vpc import VPC as VPC
from hierax.diagnose.vpc import vpc as vpc
from hierax.dynamics import pk as pk
from hierax.dynamics.adaptive import Adaptive as Adaptive
from hierax.dynamics.exponential import MatrixExponential as MatrixExponential
from hierax.dynamics.forcing import transit as transit
from hierax.dynamics.grid import Grid as Grid
from hierax.dynamics.ode import solve_ode as solve_ode
from hierax.errors import DataError as DataError
from hierax.errors import DataWarning as DataWarning
from hierax.errors import EstimatorError as EstimatorError
from hierax.errors import FitError as FitError
from hierax.errors import HieraxWarning as HieraxWarning
from hierax.errors import ModelError as ModelError
from hierax.infer import guides as guides
from hierax.infer.first_order import FO as FO
from hierax.infer.first_order import NaivePooled as NaivePooled
from hierax.infer.importance import ImportanceSampling as ImportanceSampling
from hierax.infer.importance_em import ImportanceEM as ImportanceEM
from hierax.infer.kernels import Kernels as Kernels
from hierax.infer.laplace import FOCE as FOCE
from hierax.infer.laplace import Laplace as Laplace
from hierax.infer.modes import Newton as Newton
from hierax.infer.nuts import MAP as MAP
from hierax.infer.nuts import NUTS as NUTS
from hierax.infer.nuts import JointMAP as JointMAP
from hierax.infer.nuts import MarginalNUTS as MarginalNUTS
from hierax.infer.optimise import QuasiNewton as QuasiNewton
from hierax.infer.qrpem import QRPEM as QRPEM
from hierax.infer.quadrature import AGQ as AGQ
from hierax.infer.result import Result as Result
from hierax.infer.saem import SAEM as SAEM
from hierax.infer.vi import VI as VI
from hierax.nn.flow import flow as flow
from hierax.nn.transform import NeuralTransform as NeuralTransform
from hierax.program.observe import observe as observe
from hierax.results.compare import loo as loo
from hierax.results.fit import Evaluation as Evaluation
from hierax.results.fit import Fit as Fit
from hierax.results.functions import predict_function as predict_function
from hierax.results.intervals import sir as sir
from hierax.results.likelihood import Likelihood as Likelihood
from hierax.results.likelihood import log_likelihood as log_likelihood
from hierax.results.profile import profile as profile
from hierax.results.selection import compare as compare
from hierax.results.selection import lrt as lrt
from hierax.results.storage import load_fit as load_fit

__version__ = _metadata.version("hierax")
