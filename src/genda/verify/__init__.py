"""Verification: scores, ensemble statistics, spectra, and the table that holds them.

rows = {"background": field_statistics(background, truth, times=…, channels=…, grid=…),
        "analysis": field_statistics(members, truth, times=…, channels=…, grid=…)}
print(ScoreTable(rows, reference="background").to_text(RMSE))
"""

from genda.verify.balance import geostrophic_residual, geostrophic_wind, hydrostatic_residual
from genda.verify.decomposition import crps_bins, crps_parts
from genda.verify.distances import energy_distance, sliced_wasserstein
from genda.verify.ensemble import (
    energy_score,
    fair_crps,
    outlier_ratio,
    rank_histogram,
    spread_skill_ratio,
    squared_spread,
)
from genda.verify.fields import field_statistics
from genda.verify.innovations import desroziers, ensemble_chi_square
from genda.verify.metrics import (
    BIAS,
    CHI_SQUARE,
    CRPS,
    CRPS_POTENTIAL,
    CRPS_RELIABILITY,
    ENERGY_SCORE,
    FORECAST_NMSE,
    FORECAST_RMSE,
    FORECAST_SPREAD_SKILL,
    GEOSTROPHIC,
    HYDROSTATIC,
    KINETIC_ENERGY,
    MAE,
    METRICS,
    MSE,
    NMAE,
    NMSE,
    OUTLIERS,
    RMSE,
    SPECDIV,
    SPECDIV_MEAN,
    SPREAD,
    SPREAD_SKILL,
    STATE_RMSE,
    TENDENCIES,
    Metric,
)
from genda.verify.scores import area_mean, bias, channel_mean, mae, mse, rmse
from genda.verify.significance import Paired, paired_difference
from genda.verify.specdiv import (
    BatchSpectralDivergence,
    divergence_of_spectra,
    radial_power,
    sample_spectral_divergence,
)
from genda.verify.spectra import (
    has_harmonics,
    kinetic_energy_bands,
    kinetic_energy_spectrum,
    spherical_power,
    zonal_kinetic_energy_spectrum,
    zonal_power,
)
from genda.verify.stations import LevelBin, level_bins, station_statistics
from genda.verify.statistics import Estimate, Statistics, estimate, ratio
from genda.verify.table import ScoreTable

__all__ = [
    "BIAS",
    "CHI_SQUARE",
    "CRPS",
    "CRPS_POTENTIAL",
    "CRPS_RELIABILITY",
    "ENERGY_SCORE",
    "FORECAST_NMSE",
    "FORECAST_RMSE",
    "FORECAST_SPREAD_SKILL",
    "GEOSTROPHIC",
    "HYDROSTATIC",
    "KINETIC_ENERGY",
    "MAE",
    "METRICS",
    "MSE",
    "NMAE",
    "NMSE",
    "OUTLIERS",
    "RMSE",
    "SPECDIV",
    "SPECDIV_MEAN",
    "SPREAD",
    "SPREAD_SKILL",
    "STATE_RMSE",
    "TENDENCIES",
    "BatchSpectralDivergence",
    "Estimate",
    "LevelBin",
    "Metric",
    "Paired",
    "ScoreTable",
    "Statistics",
    "area_mean",
    "bias",
    "channel_mean",
    "crps_bins",
    "crps_parts",
    "desroziers",
    "divergence_of_spectra",
    "energy_distance",
    "energy_score",
    "ensemble_chi_square",
    "estimate",
    "fair_crps",
    "field_statistics",
    "geostrophic_residual",
    "geostrophic_wind",
    "has_harmonics",
    "hydrostatic_residual",
    "kinetic_energy_bands",
    "kinetic_energy_spectrum",
    "level_bins",
    "mae",
    "mse",
    "outlier_ratio",
    "paired_difference",
    "radial_power",
    "rank_histogram",
    "ratio",
    "rmse",
    "sample_spectral_divergence",
    "sliced_wasserstein",
    "spherical_power",
    "spread_skill_ratio",
    "squared_spread",
    "station_statistics",
    "zonal_kinetic_energy_spectrum",
    "zonal_power",
]
