"""Streams stores into batches."""

from geofm_model.loading.batch import Batch
from geofm_model.loading.loader import Loader, LoaderState
from geofm_model.loading.members import Members, gather, open_dataset

__all__ = ["Batch", "Loader", "LoaderState", "Members", "gather", "open_dataset"]
