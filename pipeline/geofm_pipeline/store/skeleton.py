"""A store before its pixels: made in one rename, recognised again by its digest."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from geofm_pipeline.errors import OutputConflictError, StoreDamagedError
from geofm_pipeline.hls.fmask import MaskRule
from geofm_pipeline.store.files import disk_errors, sync_folder
from geofm_pipeline.store.layout import (
    KEY,
    MANIFEST,
    ROOT,
    JsonObject,
    codec_versions,
    dumps,
    group_document,
    manifest_layouts,
    root_attributes,
    store_layouts,
)
from geofm_pipeline.store.spec import SCHEMA_VERSION, StoreSpec

_SAME_NAME = (
    *("timesteps", "height", "width", "seed", "shard_size", "group_shards", "profile", "wave", "min_clear"),
    "provenance",
)
"""Root attributes that carry a field of the spec under its own name."""


def create(path: Path, spec: StoreSpec) -> None:
    """Make an empty store, or accept the one that is there when it is this one.

    Raises
    ------
    OutputConflictError
        When `path` holds something else: another spec (both digests named), a newer schema, other codec versions.
    ResourceError
        When the disk is full.
    """
    if not path.exists():
        _make(path, spec)
    check_store(path, spec)


def is_sealed(path: Path) -> bool:
    """Whether a complete store is at `path`; raises as :func:`read_root` does for a damaged one."""
    return (path / ROOT).exists() and bool(read_root(path).get("complete"))


def read_root(path: Path) -> JsonObject:
    """The `geofm` attributes of a store's root.

    Raises
    ------
    OutputConflictError
        When there is no geofm store at `path`, or one of a newer schema.
    StoreDamagedError
        When its root document cannot be parsed.
    """
    try:
        document = json.loads((path / ROOT).read_bytes())
    except FileNotFoundError:
        raise OutputConflictError(
            f"{path} is not a geofm store (it has no {ROOT}): choose another --out or move it away"
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"{path / ROOT} is not JSON ({error}): restore it or write the store again") from None
    attributes = document.get("attributes", {}).get(KEY) if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise OutputConflictError(f"{path} is a Zarr group but not a geofm store: choose another --out or move it away")
    version = attributes.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise OutputConflictError(
            f"{path} has store schema {version}, this geofm knows up to {SCHEMA_VERSION}: upgrade geofm, "
            "or choose another --out"
        )
    return attributes


def spec_of(attributes: JsonObject) -> StoreSpec:
    """The spec a store was made of, from its root attributes; raises StoreDamagedError when they do not hold one."""
    try:
        fields = {name: attributes[name] for name in _SAME_NAME}
        spec = StoreSpec(
            n=attributes["samples"],  # type: ignore[arg-type]
            bands=tuple(attributes["bands"]),  # type: ignore[arg-type]
            mask_rule=MaskRule(bits=tuple(attributes["valid_pixel"]["bits"])),  # type: ignore[index,call-overload,arg-type]
            **fields,  # type: ignore[arg-type]
        )
        intact = spec.digest == attributes["spec_digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(f"the root attributes hold no valid spec ({error!r}): restore {ROOT}") from None
    if not intact:
        raise StoreDamagedError(f"the root attributes do not give their own spec_digest: restore {ROOT}")
    return spec


def check_store(path: Path, spec: StoreSpec) -> JsonObject:
    """The root attributes of the store at `path`, which must be the store of `spec`; else OutputConflictError."""
    attributes = read_root(path)
    if attributes.get("spec_digest") != spec.digest:
        raise OutputConflictError(_other_store(path, spec, attributes))
    if attributes.get("codec_versions") != codec_versions():
        raise OutputConflictError(
            f"{path} is being written with {attributes.get('codec_versions')}, this process has {codec_versions()}: "
            "codec versions decide bytes, so install those versions here, or choose another --out"
        )
    return attributes


def _other_store(path: Path, spec: StoreSpec, attributes: JsonObject) -> str:
    there = attributes.get("provenance")
    old = {key: str(value) for key, value in there.items()} if isinstance(there, dict) else {}
    new = dict(spec.provenance)
    named = [
        f"{key} {old.get(key)} there, {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    return (
        f"{path} holds another store: spec digest {attributes.get('spec_digest')} there, {spec.digest} here"
        f"{''.join('; ' + text for text in named)}. Repeat the command that made it, or choose another --out"
    )


def _make(path: Path, spec: StoreSpec) -> None:
    """Build the folders and documents under a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        with disk_errors(path):
            for layout in (*store_layouts(spec), *manifest_layouts(spec)):
                (temp / layout.path).mkdir(parents=True)
                (temp / layout.path / ROOT).write_bytes(dumps(layout.document()))
            (temp / MANIFEST / ROOT).write_bytes(dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
            (temp / ROOT).write_bytes(dumps(group_document({**root_attributes(spec), "complete": False})))
            _sync_tree(temp)
            temp.rename(path)
            sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def _sync_tree(folder: Path) -> None:
    for file in folder.rglob(ROOT):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        sync_folder(file.parent)
