"""Trained networks that no one here made (../shared/weights): teachers of digits, judges.

The README there says whose they are and under which licence. In a test `from third_party import
cifar_judge, digit_teacher`; a tool puts `tests` on its path first. The folder is outside the
project: where it is absent `WEIGHTS.exists()` is False, and a test skips.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clarep.data.labelled import LabelledImages
from clarep.teachers.foreign import activation
from clarep.teachers.parametrisation import DDPM, Flow
from clarep.teachers.teacher import Teacher
from third_party_nets import Autoencoder, CifarResNet, DiT, LatentFlow, PixelViT

_BESIDE = Path(__file__).resolve().parents[2] / "shared/weights"
WEIGHTS = Path(os.environ.get("CLAREP_WEIGHTS", _BESIDE))
if not WEIGHTS.exists():
    WEIGHTS = Path("/work/shared/weights")  # of a second work tree
ABSENT = f"{WEIGHTS} is not here: others' weights are no part of the project"
TEACHERS = ("vit", "latent", "dit")
_DIGITS = tuple(str(digit) for digit in range(10))


def ready(net: nn.Module, name: str) -> nn.Module:
    """The network with the weights of a file, every one, frozen."""
    found = torch.load(WEIGHTS / name, map_location="cpu", weights_only=True)
    found = found.get("state_dict", found)
    weights = {key.removeprefix("module."): value for key, value in found.items()}
    lacking, unknown = net.load_state_dict(weights, strict=False)
    assert not unknown and all("num_batches" in key for key in lacking), (lacking, unknown)
    return net.eval().requires_grad_(False)


def cifar_judge(depth: int = 20) -> CifarResNet:
    """ResNet-20 or -56: a `Scorer`, images (B, 3, 32, 32) in [-1, 1] to logits (B, 10)."""
    name = {20: "akamaster_resnet20-12fca82f.th", 56: "akamaster_resnet56-4bfd9763.th"}[depth]
    return ready(CifarResNet(depth), name)


def digits() -> LabelledImages:
    """MNIST's 10,000 test images, which none of the teachers saw, as RGB."""
    files = [WEIGHTS / f"t10k-{part}.gz" for part in ("images", "labels")]
    packed = [gzip.decompress(file.read_bytes()) for file in files]
    pixels = np.frombuffer(packed[0], np.uint8, offset=16)
    labels = np.frombuffer(packed[1], np.uint8, offset=8)
    images = np.repeat(pixels.reshape(-1, 28, 28, 1), 3, axis=3)
    sources = [f"t10k/{i}" for i in range(len(labels))]
    return LabelledImages("digits", labels.astype(np.int64), _DIGITS, sources, images.__getitem__)


def digit_teacher(name: str) -> Teacher:
    """One of TEACHERS, made by `Teacher.from_callable`; its images are RGB in [-1, 1]."""
    return {"vit": _vit, "latent": _latent, "dit": _dit}[name]()


def _vit() -> Teacher:
    net, path = ready(PixelViT(), "sofia_vit_mnist.pth"), Flow(data_at=1)

    def run(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return net(*path.network_input(x, sigma), labels)  # x_0 itself

    def features(x: Tensor, sigma: Tensor, labels: Tensor, tap: str) -> Tensor:
        block = net.transformer[int(tap[-1]) - 1]
        tokens = activation(block, lambda: run(x, sigma, labels))
        return tokens[:, :16].mT.unflatten(2, (4, 4))

    return Teacher.from_callable(
        run,
        features,
        latent_shape=(1, 28, 28),
        image_shape=(3, 28, 28),
        encode=lambda images: (images.mean(1, keepdim=True) + 1) / 2,  # its pixels lie in [0, 1]
        decode=lambda x: (x * 2 - 1).expand(-1, 3, -1, -1),
        taps={f"block{i}": (64, 7) for i in (1, 2, 3, 4)},
        # Below, its estimate is off by more than the noise, and an inversion goes astray.
        **_described(net, path) | {"sigma_min": 0.06},
    )


def _latent() -> Teacher:
    net, path = ready(LatentFlow(), "sofia_mnist_latent.pth"), Flow(data_at=1)
    autoencoder = ready(Autoencoder(), "sofia_mnist_vae.pth")

    def run(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return net(*path.network_input(x, sigma), labels)

    def features(x: Tensor, sigma: Tensor, labels: Tensor, tap: str) -> Tensor:
        layer = net.network[{"first": 1, "middle": 2}[tap]]
        return activation(layer, lambda: run(x, sigma, labels))

    return Teacher.from_callable(
        lambda x, sigma, labels: path.denoised(x, sigma, run(x, sigma, labels)),
        features,
        latent_shape=(1, 6, 6),
        image_shape=(3, 28, 28),
        encode=autoencoder.encode,
        decode=autoencoder.decode,
        taps={"first": (32, 1), "middle": (32, 1)},
        **_described(nn.ModuleList([net, autoencoder]), path),
    )


def _dit() -> Teacher:
    net = ready(DiT(), "franfee_dit_mnist_40000.pth")
    path = DDPM(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0))

    def run(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return net(*path.network_input(x, sigma), labels)

    return Teacher.from_callable(
        lambda x, sigma, labels: path.denoised(x, sigma, run(x, sigma, labels)),
        lambda x, sigma, labels, tap: activation(
            net.dits[int(tap[-1]) - 1], lambda: run(x, sigma, labels)
        ).mT.unflatten(2, (7, 7)),
        latent_shape=(1, 28, 28),
        image_channels=3,
        taps={f"block{i}": (64, 4) for i in (1, 2, 3)},
        has_null=False,
        **_described(net, path),
    )


def _described(net: nn.Module, path: DDPM | Flow) -> dict:
    return {
        "class_names": _DIGITS,
        "sigma_min": path.sigma_min,
        "sigma_max": path.sigma_max,
        "sigma_from_t": path.sigma_from_t,
        "fingerprint": net.eval(),
    }
