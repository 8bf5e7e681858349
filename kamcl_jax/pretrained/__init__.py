"""Weights of other programs: the KAMCL release, torchvision's ResNets, skip-thoughts."""
