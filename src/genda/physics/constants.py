"""Constants of the atmosphere's dynamics beside those of :mod:`genda.variables` and the radius in :mod:`genda.grid`."""

ROTATION = 7.292115e-5
"""Ω, s⁻¹."""
VIRTUAL = 0.608
"""R_v / R_d - 1."""
HEAT_CAPACITY = 1004.675
"""c_p of dry air, 7/2 R_d, J kg⁻¹ K⁻¹."""
VAPOUR_GAS_CONSTANT = 461.5
"""R_v, J kg⁻¹ K⁻¹."""
LATENT_HEAT = 2.501e6
"""L of condensation at 0 °C, J kg⁻¹."""
STANDARD_PRESSURE = 101325.0
"""Pressure at sea level of the standard atmosphere, Pa."""
LEAST_LATITUDE = 20.0
"""Degrees from the equator within which no geostrophic balance is looked for."""
