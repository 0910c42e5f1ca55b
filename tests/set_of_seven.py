"""A canonical set of seven images made up, in three shards: what tests of the store write."""

import torch

from clarep.clarid.canonical_set import CanonicalSetWriter
from clarep.clarid.clareps import CLAReps

CHOSEN = [3, 5, 8, 13, 21, 34, 55]
LABELS = [0, 0, 0, 1, 1, 0, 2]
SHARDS = ["shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors"]
CONFIG = {"teacher": "t", "clarid": {"k": 4, "t": 0.5}, "sigma_te": 2.0, "tap": "mid", "seed": 0}
COST = {
    "images": 3,
    "denoiser_evaluations": 10,
    "jacobian_products": 20,
    "seconds": {"invert": 1.5},
    "peak_memory_mb": 100,
}


def rep_of(index):
    generator = torch.Generator().manual_seed(index)

    def draw(*shape):
        return torch.randn(1, *shape, generator=generator)

    return CLAReps(
        index=torch.tensor([index]),
        label=torch.tensor([LABELS[CHOSEN.index(index)]]),
        x_te=draw(3, 4, 4),
        latent=draw(3, 4, 4),
        singular_values=draw(4).abs(),
        features=draw(5, 2, 2),
        sample=draw(3, 16, 16),
        round_trip_psnr=torch.tensor([30.0 + index]),
    )


def write(folder, shards=99, config=CONFIG):
    """Write at most so many of the missing shards; return the names of all that were missing."""
    writer = CanonicalSetWriter(folder, config, CHOSEN, shard_size=3)
    missing = list(writer.missing())
    for name, group in missing[:shards]:
        writer.add(name, [rep_of(i) for i in group], COST)
    writer.finish()
    return [name for name, _ in missing]


def entries(shards):
    return [name.replace(".safetensors", ".json") for name in shards]


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.safetensors"))}
