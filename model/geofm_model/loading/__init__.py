"""Streams stores into batches."""

from geofm_model.loading.adaptors import LoaderDataset, StoreDataset
from geofm_model.loading.batch import Batch
from geofm_model.loading.dataset import open_dataset
from geofm_model.loading.design import stratum_names
from geofm_model.loading.loader import Loader, LoaderState
from geofm_model.loading.members import Members, gather

__all__ = [
    "Batch",
    "Loader",
    "LoaderDataset",
    "LoaderState",
    "Members",
    "StoreDataset",
    "gather",
    "open_dataset",
    "stratum_names",
]
