"""`python -m geofm_model`, which torchrun starts: the same as `geofm-train`."""

from geofm_model.cli import main

main()
