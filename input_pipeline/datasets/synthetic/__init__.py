"""The drawn data set: attributes, drawing primitives, kinds of scenes and their captions."""
