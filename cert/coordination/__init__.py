"""Several agents against one: does an arrangement of a model beat the model alone."""
