"""The fast paths: the same numbers as the plain model, in less time and memory.

The plain modules (`operator`, `filter`, `backbone`) define the model and are what the tests compare with.
Nothing here is chosen by the user: `HyenaDNA` calls `inference` without gradients and `training` with them.
"""
