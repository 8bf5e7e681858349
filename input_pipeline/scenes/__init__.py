"""Parts of the drawn data set: attributes, drawing primitives, scene kinds and captions."""
