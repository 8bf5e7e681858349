"""The one error that users of weight files see."""


class PretrainedError(ValueError):
    """A file of weights that cannot be used; told in one sentence that names file and tensor."""
