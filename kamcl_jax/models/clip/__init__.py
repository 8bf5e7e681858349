"""The encoders of CLIP and SigLIP, which published weights fit: presets, image and text towers."""
