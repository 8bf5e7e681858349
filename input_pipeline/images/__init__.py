"""Image files become uint8 RGB arrays, by one reader for all routes."""
