"""KAMCL in JAX: knowledge-aided momentum contrastive learning for remote-sensing retrieval."""
