"""What an algorithm is that is no maximisation of a marginal likelihood's approximation: SAEM, VI, NUTS, MAP."""

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
    # What kind of covariance of the estimates belongs to it.
    covariance: ClassVar[Literal["hessian", "louis"]] = "hessian"
