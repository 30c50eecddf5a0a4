"""Hierax: nonlinear mixed-effects models as NumPyro programs.

A model is a plain NumPyro function with a subject plate; every estimator, simulation and diagnostic reads that same
function. Start with ``hx.read_nonmem``, ``hx.check`` and ``hx.fit``.
"""

import importlib.metadata as _metadata

from hierax import nn as nn
from hierax.analyse.augment import Augmented as Augmented
from hierax.analyse.augment import augment as augment
from hierax.analyse.bootstrap import Bootstrap as Bootstrap
from hierax.analyse.bootstrap import bootstrap as bootstrap
from hierax.analyse.compare import compare as compare
from hierax.analyse.compare import lrt as lrt
from hierax.analyse.cross_validation import Candidate as Candidate
from hierax.analyse.cross_validation import CrossValidation as CrossValidation
from hierax.analyse.cross_validation import cross_validate as cross_validate
from hierax.analyse.functions import predict_function as predict_function
from hierax.analyse.loo import loo as loo
from hierax.analyse.profile import profile as profile
from hierax.analyse.simulate import predict as predict
from hierax.analyse.simulate import simulate as simulate
from hierax.analyse.sir import sir as sir
from hierax.data import datasets as datasets
from hierax.data.events import Events as Events
from hierax.data.population import Population as Population
from hierax.data.reading.read import read_nonmem as read_nonmem
from hierax.data.regimen import Regimen as Regimen
from hierax.data.regimen import Subject as Subject
from hierax.diagnose import plot as plot
from hierax.diagnose.citation import citation as citation
from hierax.diagnose.effects import covariate_effects as covariate_effects
from hierax.diagnose.report import report as report
from hierax.diagnose.vpc import VPC as VPC
from hierax.diagnose.vpc import vpc as vpc
from hierax.dynamics import pk as pk
from hierax.dynamics.linear.forcing import transit as transit
from hierax.dynamics.ode.adaptive import Adaptive as Adaptive
from hierax.dynamics.ode.grid import Grid as Grid
from hierax.dynamics.ode.matrix_exponential import MatrixExponential as MatrixExponential
from hierax.dynamics.ode.solve import solve_ode as solve_ode
from hierax.errors import DataError as DataError
from hierax.errors import DataWarning as DataWarning
from hierax.errors import EstimatorError as EstimatorError
from hierax.errors import FitError as FitError
from hierax.errors import HieraxWarning as HieraxWarning
from hierax.errors import ModelError as ModelError
from hierax.estimate import ebe as ebe
from hierax.estimate import evaluate as evaluate
from hierax.estimate import fit as fit
from hierax.infer.marginal.first_order import FO as FO
from hierax.infer.marginal.first_order import NaivePooled as NaivePooled
from hierax.infer.marginal.importance import ImportanceSampling as ImportanceSampling
from hierax.infer.marginal.laplace import FOCE as FOCE
from hierax.infer.marginal.laplace import Laplace as Laplace
from hierax.infer.marginal.modes import Newton as Newton
from hierax.infer.marginal.quadrature import AGQ as AGQ
from hierax.infer.mcmc.map import MAP as MAP
from hierax.infer.mcmc.map import JointMAP as JointMAP
from hierax.infer.mcmc.nuts import NUTS as NUTS
from hierax.infer.mcmc.nuts import MarginalNUTS as MarginalNUTS
from hierax.infer.result import Result as Result
from hierax.infer.saem.importance_em import ImportanceEM as ImportanceEM
from hierax.infer.saem.kernels import Kernels as Kernels
from hierax.infer.saem.qrpem import QRPEM as QRPEM
from hierax.infer.saem.saem import SAEM as SAEM
from hierax.infer.search.options import QuasiNewton as QuasiNewton
from hierax.infer.vi import guides as guides
from hierax.infer.vi.vi import VI as VI
from hierax.nn.flow import flow as flow
from hierax.nn.transform import NeuralTransform as NeuralTransform
from hierax.parsed import check as check
from hierax.parsed import program as program
from hierax.program.observe import observe as observe
from hierax.results.files.load import load_fit as load_fit
from hierax.results.fit import Evaluation as Evaluation
from hierax.results.fit import Fit as Fit
from hierax.results.likelihood import Likelihood as Likelihood
from hierax.results.likelihood import log_likelihood as log_likelihood

__version__ = _metadata.version("hierax")
