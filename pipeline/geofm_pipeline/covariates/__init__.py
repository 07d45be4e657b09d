"""Covariates of cells: land cover, weather, expected clear share and a user's own classes, a tile at a time."""

from geofm_pipeline.covariates.clear_sky import expected_clear
from geofm_pipeline.covariates.land_cover import land_cover_fractions
from geofm_pipeline.covariates.layer import layer_values
from geofm_pipeline.covariates.legends import land_cover_names
from geofm_pipeline.covariates.result import Covariates
from geofm_pipeline.covariates.weather import weather_monthly

__all__ = [
    "Covariates",
    "expected_clear",
    "land_cover_fractions",
    "land_cover_names",
    "layer_values",
    "weather_monthly",
]
