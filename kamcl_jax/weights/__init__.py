"""Published weights become variables of our modules: torchvision, skip-thoughts, the release."""
