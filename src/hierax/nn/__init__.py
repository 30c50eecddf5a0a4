"""Neural networks with built-in properties, and the distributions and penalties that go with them."""

from hierax.nn.conditional import conditional_normal as conditional_normal
from hierax.nn.heads import Bounded as Bounded
from hierax.nn.heads import LogLinear as LogLinear
from hierax.nn.heads import Monotone as Monotone
from hierax.nn.heads import Positive as Positive
from hierax.nn.heads import Saturating as Saturating
from hierax.nn.heads import ZeroAtZero as ZeroAtZero
from hierax.nn.individualise import Individual as Individual
from hierax.nn.individualise import individualise as individualise
from hierax.nn.masked import Autoregressive as Autoregressive
from hierax.nn.masked import Conditioner as Conditioner
from hierax.nn.mlp import MLP as MLP
from hierax.nn.network import network as network
from hierax.nn.penalties import group as group
from hierax.nn.penalties import l1 as l1
from hierax.nn.penalties import l2 as l2
from hierax.nn.stack import Stack as Stack
