"""All that commands import, for the processes of tests to be forked with."""

import importlib
import pkgutil

import matplotlib.figure  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch
import torch._dynamo  # every optimizer imports it, for seconds

import hyenacli

for module in pkgutil.walk_packages(hyenacli.__path__, "hyenacli."):
    if module.name != "hyenacli.__main__":
        importlib.import_module(module.name)
torch.set_num_threads(1)
