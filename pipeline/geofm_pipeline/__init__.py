"""The outside world: catalogues, COGs, Dask, the store writer, the report, `geofm-sample`."""
