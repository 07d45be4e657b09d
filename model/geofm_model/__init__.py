"""Reads geofm training stores. Imports neither other room: the store on disk is the wall."""

from geofm_model.errors import StoreError, TombstoneError
from geofm_model.sample import BandStatistics, PixelRule, Sample
from geofm_model.store import Store

__all__ = ["BandStatistics", "PixelRule", "Sample", "Store", "StoreError", "TombstoneError"]
