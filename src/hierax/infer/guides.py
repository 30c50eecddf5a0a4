"""Variational distributions of each subject's random effects."""

from hierax.infer.amortised import Amortised as Amortised
from hierax.infer.amortised import Encoder as Encoder
from hierax.infer.guide import Guide as Guide
from hierax.infer.guide import Normal as Normal
from hierax.infer.guide import Sinh as Sinh
