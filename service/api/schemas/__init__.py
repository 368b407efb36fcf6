"""Request and response models, one module per resource. They exist in `service.api` only."""
