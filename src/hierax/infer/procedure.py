"""The base of estimators that do not just maximise an approximation of the marginal likelihood: SAEM, VI, NUTS, MAP."""

from __future__ import annotations

from typing import ClassVar, Literal

from hierax.infer.marginal.estimator import Estimator
from hierax.infer.method import Method


class Procedure(Method):
    """Base of the estimators that are algorithms of their own.

    Attributes
    ----------
    objective : Estimator
        The approximation of the marginal likelihood that is reported at the estimate, and that gives the EBEs.
    """

    objective: Estimator
    # How the covariance of the estimates is computed by default: from the Hessian, or by Louis's method.
    covariance: ClassVar[Literal["hessian", "louis"]] = "hessian"
