"""Facts of the HLS v2.0 product: granule ids, bands, the tile grid, Fmask bits. No I/O."""
