"""A prepared data set becomes the arrays of its splits, and those become batches."""
