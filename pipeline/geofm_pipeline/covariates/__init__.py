"""Covariates of cells: land-cover fractions and monthly weather, from whatever raster the user names."""

from geofm_pipeline.covariates.land_cover import land_cover_fractions
from geofm_pipeline.covariates.result import Covariates
from geofm_pipeline.covariates.weather import weather_monthly

__all__ = ["Covariates", "land_cover_fractions", "weather_monthly"]
