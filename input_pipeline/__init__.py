"""Host-side input pipeline: NumPy only, never imports kamcl_jax."""
