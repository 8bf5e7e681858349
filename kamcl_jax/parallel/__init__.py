"""Devices, processes and compiled programs: where arrays lie and what XLA makes of the step."""
