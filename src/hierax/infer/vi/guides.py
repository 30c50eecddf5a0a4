"""Variational distributions of each subject's random effects."""

from hierax.infer.vi.amortised import Amortised as Amortised
from hierax.infer.vi.amortised import Encoder as Encoder
from hierax.infer.vi.guide import Guide as Guide
from hierax.infer.vi.guide import Normal as Normal
from hierax.infer.vi.guide import Sinh as Sinh
