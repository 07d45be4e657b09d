"""Training stores: their layout, order, writer, seal and verification. docs/store.md is the contract."""

from geofm_pipeline.store.files import writer_lock
from geofm_pipeline.store.finalise import ROWS, StoreSummary, finalise
from geofm_pipeline.store.order import assign_rows, clusters
from geofm_pipeline.store.parts import GroupResult, Tombstone
from geofm_pipeline.store.report import Finding, VerifyReport
from geofm_pipeline.store.skeleton import create, is_sealed
from geofm_pipeline.store.spec import StoreSpec
from geofm_pipeline.store.verify import verify
from geofm_pipeline.store.workbench import RowRequest
from geofm_pipeline.store.writer import pending_groups, remove_leftovers, write_group

__all__ = [
    "ROWS",
    "Finding",
    "GroupResult",
    "RowRequest",
    "StoreSpec",
    "StoreSummary",
    "Tombstone",
    "VerifyReport",
    "assign_rows",
    "clusters",
    "create",
    "finalise",
    "is_sealed",
    "pending_groups",
    "remove_leftovers",
    "verify",
    "write_group",
    "writer_lock",
]
