"""`geofm-sample import`: images of a user's own, written as a training store like any other (docs/cli.md)."""
