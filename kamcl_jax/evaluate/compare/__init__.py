"""Two or more trained runs beside each other."""
