"""ml_collections configs, one small file a data set over `base`."""
