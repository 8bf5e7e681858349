"""What a run's curves are drawn from."""

import dataclasses


@dataclasses.dataclass
class History:
    """Metrics over training; travels in every checkpoint.

    Attributes:
      train: means of the step's metrics over each logging interval, with `step` and `epoch`
        (epochs passed, with a fraction).
      validation: metrics of each validation, with `step` and `epoch`.
      pending: metrics of the steps of the logging interval that has not ended.
      seconds: spent in training and validation so far.
    """

    train: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validation: list[dict[str, float]] = dataclasses.field(default_factory=list)
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def validation_at(self, step: int) -> dict[str, float] | None:
        """Returns the validation metrics of a step, without `step` and `epoch`.

        None if there was no validation then, as for weights that come from another program.
        """
        for row in self.validation:
            if row["step"] == step:
                return {name: value for name, value in row.items() if name not in ("step", "epoch")}
        return None
