"""Physics: what the laws of the atmosphere say about a state, as differentiable functions of it."""

from genda.physics.derivatives import Derivatives, Differentiation
from genda.physics.enforcement import Enforcement, Equation
from genda.physics.primitive_equations import PrimitiveEquations
from genda.physics.residuals import BalanceResidual, Residual, ResidualNorm, TendencyResidual, TwoTimeResidual
from genda.physics.vertical import Column

__all__ = [
    "BalanceResidual",
    "Column",
    "Derivatives",
    "Differentiation",
    "Enforcement",
    "Equation",
    "PrimitiveEquations",
    "Residual",
    "ResidualNorm",
    "TendencyResidual",
    "TwoTimeResidual",
]
