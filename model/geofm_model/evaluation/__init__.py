"""What a model is worth: estimates with intervals, probes of features, pictures. Pure: arrays in, records out."""
