"""A run is scored: its best checkpoint, the report with figures and tables, and its data."""
