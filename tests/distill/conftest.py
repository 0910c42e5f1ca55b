"""Three coloured classes of 16 pixels, a tiny teacher of them, and its canonical sets."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.audit.audit import Audit, EvidenceTargets
from clarep.audit.targets import evidence_targets
from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify_steps
from clarep.data.cues import GroupedImages
from clarep.data.foregrounds import MaskedImages
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.data.load import DataConfig, load_data
from clarep.distill.distill_config import DistillConfig
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet
from clarep.teachers.zoo import load_teacher

QUICK = DistillConfig(epochs=2, batch_size=32, canonical_batch_size=8, learning_rate=0.05, cutout=3)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 128, (120, 16, 16, 3))
    images[np.arange(120), :, :, labels] += 64
    images = images.astype(np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:30], y_test=labels[:30])
    return path


@pytest.fixture(scope="session")
def data_config(archive):
    return DataConfig(data=str(archive))


@pytest.fixture(scope="session")
def data_options(data_config):
    return json.loads(json.dumps(asdict(data_config), default=str))


@pytest.fixture(scope="session")
def data(data_config):
    return load_data(data_config)


@pytest.fixture(scope="session")
def grouped(data):
    """The same images, two of three of each class with their class's own cue, the others without
    or with another: groups of 30, 7 or 3 images."""
    known = {one.name: getattr(data, one.name) for one in fields(data)}
    rank = np.arange(120) // 3
    cue = np.where(rank < 30, data.labels, np.where(rank < 37, (data.labels + 1) % 3, -1))
    return GroupedImages(**known, cue=cue)


@pytest.fixture(scope="session")
def teacher_path(data, tmp_path_factory):
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    net = UNet(UNetConfig(image_size=16, num_classes=3, widths=(8, 16), embed_dim=16))
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # freshly made, these hide the layers before them
                parameter.normal_(std=0.1)
    torch.set_rng_state(torch_state)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_unet(net, path, data.class_names, 0.01, 80.0)
    return path


@pytest.fixture(scope="session")
def teacher(teacher_path):
    return load_teacher(str(teacher_path))


@pytest.fixture(scope="session")
def canonical_of(data, data_options, teacher, tmp_path_factory):
    """Make the canonical set of a kind and guidance, once each; every fourth image is in it."""
    made = {}

    def of(kind="top", guidance=3.0):
        if (kind, guidance) not in made:
            folder = tmp_path_factory.mktemp("canon")
            clarid = Clarid(teacher, k=2, steps=1, kind=kind, guidance=guidance, solver="euler")
            described = {"teacher": "tiny", "data_options": data_options}
            chosen = np.arange(0, 120, 4)
            list(identify_steps(clarid, data, folder, chosen, described=described))
            made[kind, guidance] = CanonicalSet.load(folder)
        return made[kind, guidance]

    return of


@pytest.fixture(scope="session")
def audit(data, teacher):
    """An audit in memory of all images, of figures made up; every third has class evidence."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.from_numpy(data.labels)
    tried = (labels[:, None] + torch.arange(3)) % 3
    errors = torch.rand(1, 2, 120, 3, generator=generator)
    masks = torch.zeros(120, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    index = np.array([i for i in range(120) if i // 3 % 3 == 0])
    images = to_unit_range(data.images(index))
    given = {"sigma": 0.5, "draws": 2, "index": index, "seed": 0, "batch_size": 20}
    evidence = evidence_targets(teacher, images, **given)
    config = {"audit": {}, "data_sha256": data.sha256(np.arange(120))}
    manifest = {"config": config, "files": {"made": "up"}}
    targets = EvidenceTargets(torch.from_numpy(index), evidence)
    return Audit(Path("audit"), manifest, torch.arange(120), labels, tried, errors, masks, targets)


@pytest.fixture(scope="session")
def masked(data):
    """The data, with objects that are known: a square that moves."""

    def mask(i):
        inside = np.zeros((16, 16), np.bool_)
        inside[i % 5 : i % 5 + 7, 3:11] = True
        return inside

    known = {one.name: getattr(data, one.name) for one in fields(LabelledImages) if one.init}
    return MaskedImages(**known, mask=mask)


@pytest.fixture(scope="session")
def quick():
    return QUICK
