"""A trained model that embeds images and sentences, without its data."""
