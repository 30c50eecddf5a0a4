"""Networks with structure, and distributions built from them."""

from hierax.nn.masked import Autoregressive as Autoregressive
from hierax.nn.masked import Conditioner as Conditioner
from hierax.nn.stack import Stack as Stack
