"""Searching a folder of images by sentences and by images."""
