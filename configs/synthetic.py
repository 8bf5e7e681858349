"""The embedded data set of drawn scenes: a small KAMCL that a laptop trains in minutes."""

from configs import base


def get_config():
    """Returns a narrow model and a short schedule with both of its steps."""
    config = base.get_config()
    config.num_epochs = 8
    config.batch_size = 50
    config.image_size = 64
    config.embedding_size = 128
    config.num_concepts = 128
    config.queue_length = 1000
    config.momentum = 0.99  # a thousand steps are too few for 0.999

    config.data.name = "synthetic"
    config.data.dir = "data/synthetic"  # drawn there on first use
    config.data.validation = "published"
    config.data.options.train = 1000
    config.data.options.validation = 200
    config.data.options.test = 200
    config.data.options.size = 96  # pixels of the drawn scenes
    config.data.options.seed = 0  # of the scenes, whatever the training's seed

    config.image_encoder.width = 16
    config.text_encoder.word_width = 64
    config.text_encoder.hidden_width = 128

    config.schedule.alignment_from_epoch = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.decay_every_epochs = 6
    return config
