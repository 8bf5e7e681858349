r"""Images of your own with a CSV, TSV, JSONL or JSON file of captions.

python main.py --mode=train --config=configs/caption_folder.py --workdir=runs/own \
    --config.data.dir=FOLDER
"""

from configs import variants


def get_config(variant: str = "resnet18"):
    """Returns a training on a folder of images.

    Args:
      variant: One of `variants.VARIANTS`, as in `--config=configs/caption_folder.py:resnet50`.

    Raises:
      ValueError: The variant is unknown.
    """
    config = variants.get_config("caption_folder", variant, small_epochs=20)
    config.data.validation = "auto"
    config.data.options.test_fraction = 0.2  # where the file does not say what is for test
    config.data.options.split_seed = 0  # of that choice
    return config
