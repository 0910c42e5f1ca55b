"""Pickles in the form of NVlabs' `torch_utils.persistence`, made without a line of its code."""

import os
import pickle
import sys
import types
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


class EasyDict(dict):
    """Stands in for `dnnlib.util.EasyDict`."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the pickle was opened by the usual reader")


class Persistent(nn.Module):
    """A module that is pickled with the source of its class and its state."""

    def __init__(self, class_name, source="raise AssertionError('the source ran')"):
        super().__init__()
        self._class_name, self._source = class_name, source
        self._init_args, self._init_kwargs = (), {}

    def __reduce__(self):
        state = super().__reduce__()[2]
        meta = dict(type="class", version=6, module_src=self._source, class_name=self._class_name)
        return _reconstruct_persistent_obj, (meta | dict(state=state),), None


EasyDict.__module__ = "dnnlib.util"
_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


@contextmanager
def _original_modules():
    """Let pickle find the names where NVlabs' code has them."""
    fake = {name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence")}
    fake |= {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.util")}
    fake["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    fake["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(fake)
    try:
        yield
    finally:
        for name in fake:
            del sys.modules[name]


def persistent(module):
    """Copy a module of ours as its original is: containers plain, everything else persistent."""
    copied = Persistent(type(module).__name__)
    copied._init_kwargs = dict(init_weight=np.sqrt(0.2))
    copied.skip_scale = np.sqrt(0.5)
    copied.register_buffer("resample_filter", None)
    for name, value in module._parameters.items():
        copied.register_parameter(name, value)
    for name, value in module._buffers.items():
        copied.register_buffer(name, value)
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleDict):
            layers = {key: persistent(layer) for key, layer in child.items()}
            copied.add_module(name, nn.ModuleDict(layers))
        elif isinstance(child, nn.Identity):
            setattr(copied, name, None)
        else:
            copied.add_module(name, persistent(child))
    return copied


def snapshot(network, init_kwargs, class_name="EDMPrecond", source="raise AssertionError"):
    """Build what NVlabs' training leaves: a dictionary with the averaged network as `ema`."""
    ema = Persistent(class_name, source)
    ema._init_kwargs = EasyDict(init_kwargs)
    ema.sigma_data = 0.5
    ema.model = persistent(network)
    ema.model.map_augment = Persistent("Linear")
    ema.model.map_augment.weight = nn.Parameter(torch.ones(8, 9))
    loss = Persistent("EDMLoss", source)
    loss.P_mean = -1.2
    dataset = EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=8)
    return dict(ema=ema, loss_fn=loss, augment_pipe=None, dataset_kwargs=dataset)


def dump(path, content):
    """Pickle content as NVlabs' code does: plain pickle, default protocol."""
    with _original_modules(), open(path, "wb") as stream:
        pickle.dump(content, stream, protocol=4)
    return path


class Call:
    """Pickled, asks the reader for a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    """An object that makes a file where it is unpickled in the usual way."""
    return Call(os.system, f"touch {path}")
