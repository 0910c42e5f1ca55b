"""EDM's networks: layers against diffusers, the whole against code that knows no module."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarep.teachers.families.edm_net import (
    Block,
    Conv,
    DhariwalShape,
    EDMUNet,
    SongShape,
    group_norm,
    positional_angles,
    resample,
    separable_filter,
)

TINY = dict(img_resolution=8, img_channels=3, label_dim=3, channel_mult=(1, 2), num_blocks=1)
SHAPES = {
    "ddpmpp": SongShape(**TINY, model_channels=8, attn_resolutions=(4,)),
    "ncsnpp": SongShape(
        **TINY,
        model_channels=8,
        attn_resolutions=(4,),
        embedding_type="fourier",
        encoder_type="residual",
        channel_mult_noise=2,
        resample_filter=(1.0, 3.0, 3.0, 1.0),
    ),
    # 64 channels at the coarsest level: ADM has a head for every 64 channels
    "adm": DhariwalShape(**TINY, model_channels=32, attn_resolutions=(4,)),
}


def random_network(shape):
    """A network none of whose weights is zero, in float64."""
    torch.manual_seed(0)
    network = EDMUNet(shape)
    for name, value in network.state_dict().items():
        if name.endswith("freqs"):
            value.copy_(16 * torch.randn(value.shape))
        elif not name.endswith("resample_filter"):
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.3
            value.copy_((value if "norm" in name else 0) + scale * torch.randn(value.shape))
    return network.double().requires_grad_(False)


def naive_norm(x, weight, bias, eps):
    batch, channels = x.shape[:2]
    groups = min(32, channels // 4)
    rows = x.reshape(batch, groups, -1)
    mean, var = rows.mean(2, keepdim=True), rows.var(2, unbiased=False, keepdim=True)
    normed = ((rows - mean) / (var + eps).sqrt()).reshape(x.shape)
    return normed * weight[None, :, None, None] + bias[None, :, None, None]


def naive_resample(x, taps, up):
    from diffusers.models.downsampling import downsample_2d
    from diffusers.models.upsampling import upsample_2d

    if len(taps) == 2:
        return F.interpolate(x, scale_factor=2, mode="nearest") if up else F.avg_pool2d(x, 2)
    walk = upsample_2d if up else downsample_2d
    return walk(x.float(), kernel=taps).to(x.dtype)


def naive_attention(qkv, heads):
    batch, triple, height, width = qkv.shape
    size = triple // 3 // heads
    out = torch.zeros(batch, triple // 3, height * width, dtype=qkv.dtype)
    flat = qkv.flatten(2)
    for b in range(batch):
        for head in range(heads):
            rows = [3 * (head * size + i) for i in range(size)]
            q, k, v = (flat[b, [row + part for row in rows]] for part in range(3))
            weights = torch.softmax(q.T @ k / math.sqrt(size), dim=1)
            out[b, head * size : (head + 1) * size] = v @ weights.T
    return out.reshape(batch, triple // 3, height, width)


class Naive:
    """The forward pass of the tiny networks, written along the names of their weights."""

    def __init__(self, weights, shape):
        self.w, self.is_song = weights, isinstance(shape, SongShape)
        self.is_ncsnpp = self.is_song and shape.embedding_type == "fourier"
        self.taps = (1, 3, 3, 1) if self.is_ncsnpp else (1, 1)

    def linear(self, name, x):
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def conv(self, name, x):
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, self.w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(self, name, x):
        eps = 1e-6 if self.is_song else 1e-5
        return naive_norm(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps)

    def block(self, name, x, emb):
        scale = math.sqrt(0.5) if self.is_song else 1.0
        h, skip = F.silu(self.norm(f"{name}.norm0", x)), x
        if name.endswith(("up", "down")):
            h = naive_resample(h, self.taps, name.endswith("up"))
            skip = naive_resample(skip, self.taps, name.endswith("up"))
        h = self.conv(f"{name}.conv0", h)
        affine = self.linear(f"{name}.affine", emb)[:, :, None, None]
        if self.is_song:
            h = self.norm(f"{name}.norm1", h + affine)
        else:
            scaled, shift = affine[:, : h.shape[1]], affine[:, h.shape[1] :]
            h = self.norm(f"{name}.norm1", h) * (scaled + 1) + shift
        h = self.conv(f"{name}.conv1", F.silu(h))
        if f"{name}.skip.weight" in self.w:
            skip = self.conv(f"{name}.skip", skip)
        h = (h + skip) * scale
        if f"{name}.qkv.weight" in self.w:
            heads = 1 if self.is_song else h.shape[1] // 64
            mixed = naive_attention(self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", h)), heads)
            h = (h + self.conv(f"{name}.proj", mixed)) * scale
        return h

    def embed(self, time, classes):
        width = self.w["map_layer0.weight"].shape[1]
        if self.is_ncsnpp:
            frequencies = 2 * math.pi * self.w["map_noise.freqs"]
        else:
            last = width // 2 - (1 if self.is_song else 0)
            powers = [10_000 ** (-i / last) for i in range(width // 2)]
            frequencies = torch.tensor(powers, dtype=torch.float64)
        angles = time[:, None] * frequencies
        if not self.is_song:
            emb = F.silu(self.linear("map_layer0", torch.cat([angles.cos(), angles.sin()], 1)))
            return F.silu(self.linear("map_layer1", emb) + self.linear("map_label", classes))
        emb = torch.cat([angles.sin(), angles.cos()], 1)
        emb = emb + self.linear("map_label", classes * math.sqrt(3))
        return F.silu(self.linear("map_layer1", F.silu(self.linear("map_layer0", emb))))

    def down(self, x, emb, fine):
        coarse = self.block("enc.4x4_down", fine, emb)
        if not self.is_ncsnpp:
            return coarse
        name = "enc.4x4_aux_residual"
        again = naive_conv_down(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])
        return (coarse + again) / math.sqrt(2)

    def __call__(self, x, time, classes):
        emb = self.embed(time, classes)
        stem = self.conv("enc.8x8_conv", x)
        fine = self.block("enc.8x8_block0", stem, emb)
        coarse = self.down(x, emb, fine)
        h = low = self.block("enc.4x4_block0", coarse, emb)
        h = self.block("dec.4x4_in1", self.block("dec.4x4_in0", h, emb), emb)
        h = self.block("dec.4x4_block0", torch.cat([h, low], 1), emb)
        h = self.block("dec.4x4_block1", torch.cat([h, coarse], 1), emb)
        h = self.block("dec.8x8_up", h, emb)
        h = self.block("dec.8x8_block0", torch.cat([h, fine], 1), emb)
        h = self.block("dec.8x8_block1", torch.cat([h, stem], 1), emb)
        end = "dec.8x8_aux" if self.is_song else "out"
        return self.conv(f"{end}_conv", F.silu(self.norm(f"{end}_norm", h)))


def naive_conv_down(x, weight, bias):
    """Filter first, then a convolution of stride 2, as NCSN++ does it: diffusers' layer."""
    from diffusers.models.downsampling import FirDownsample2D

    layer = FirDownsample2D(x.shape[1], weight.shape[0], use_conv=True)
    layer.Conv2d_0.weight.data, layer.Conv2d_0.bias.data = weight.float(), bias.float()
    return layer(x.float()).to(x.dtype).detach()


@pytest.mark.parametrize("name", SHAPES)
def test_the_network_is_that_of_naive_code(name):
    network = random_network(SHAPES[name])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    time = torch.tensor([-1.3, 0.0, 0.9], dtype=torch.float64)
    classes = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.float64)
    expected = Naive(network.state_dict(), SHAPES[name])(x, time, classes)
    assert float(expected.std()) > 0.3
    # diffusers filters in float32
    assert torch.allclose(network(x, time, classes), expected, atol=1e-5 if "n" in name else 1e-10)
    assert not torch.allclose(network(x, time, classes.flip(0)), expected, atol=1e-2)


def test_names_and_shapes_are_those_of_the_original_state_dict():
    shape = SongShape(8, 3, 10, model_channels=8, channel_mult=(1, 2), num_blocks=1)
    found = {name: tuple(value.shape) for name, value in EDMUNet(shape).state_dict().items()}
    for name, expected in {
        "map_label.weight": (8, 10),
        "map_label.bias": (8,),
        "map_layer0.weight": (32, 8),
        "map_layer1.weight": (32, 32),
        "enc.8x8_conv.weight": (8, 3, 3, 3),
        "enc.8x8_block0.norm0.weight": (8,),
        "enc.8x8_block0.affine.weight": (8, 32),
        "enc.4x4_down.conv0.resample_filter": (1, 1, 2, 2),
        "enc.4x4_down.skip.weight": (8, 8, 1, 1),
        "enc.4x4_down.skip.resample_filter": (1, 1, 2, 2),
        "enc.4x4_block0.skip.weight": (16, 8, 1, 1),
        "dec.4x4_in0.norm2.weight": (16,),
        "dec.4x4_in0.qkv.weight": (48, 16, 1, 1),
        "dec.4x4_in0.proj.weight": (16, 16, 1, 1),
        "dec.4x4_in1.conv1.weight": (16, 16, 3, 3),
        "dec.4x4_block0.norm0.weight": (32,),
        "dec.8x8_up.conv0.weight": (16, 16, 3, 3),
        "dec.8x8_block1.conv0.weight": (8, 16, 3, 3),
        "dec.8x8_aux_norm.weight": (8,),
        "dec.8x8_aux_conv.weight": (3, 8, 3, 3),
    }.items():
        assert found[name] == expected, name
    assert not [name for name in found if "in1.qkv" in name or "map_noise" in name]
    assert "enc.8x8_block0.skip.weight" not in found


@pytest.mark.parametrize(
    ("shape", "millions", "lowest"),
    [
        (SongShape(32, 3, 10, channel_mult=(2, 2, 2)), 56, "dec.8x8_in1"),
        (DhariwalShape(64, 3, 1000), 296, "dec.8x8_in1"),
    ],
)
def test_the_published_networks_have_as_many_parameters_as_is_cited(shape, millions, lowest):
    with torch.device("meta"):
        built = EDMUNet(shape)
    assert round(sum(p.numel() for p in built.parameters()) / 1e6) == millions
    assert isinstance(built.get_submodule(lowest), Block)


def kind(adaptive, taps=(1.0, 1.0), head_channels=None):
    """A shape whose embedding has 12 channels, and whose blocks are of any kind."""
    kept = {"adaptive": adaptive, "head_channels": head_channels}
    shape = type("Mixed", (SongShape,), kept)
    return shape(8, 3, 10, model_channels=3, resample_filter=taps)


@pytest.mark.parametrize("fir", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_a_block_is_diffusers_resnet_block(direction, adaptive, fir):
    from diffusers.models.resnet import ResnetBlock2D

    torch.manual_seed(0)
    block = Block(
        8, 16, kind(adaptive, (1.0, 3.0, 3.0, 1.0) if fir else (1.0, 1.0)), direction=direction
    )
    oracle = ResnetBlock2D(
        in_channels=8,
        out_channels=16,
        temb_channels=12,
        groups=2,
        groups_out=4,
        eps=1e-6,
        time_embedding_norm="scale_shift" if adaptive else "default",
        skip_time_act=True,  # ours is given the embedding after its activation
        kernel="fir" if fir else "sde_vp",
        output_scale_factor=math.sqrt(2),
        up=direction == "up",
        down=direction == "down",
    )
    names = {"norm0": "norm1", "conv0": "conv1", "affine": "time_emb_proj"}
    names |= {"norm1": "norm2", "conv1": "conv2", "skip": "conv_shortcut"}
    for ours, theirs in names.items():
        for tensor in ("weight", "bias"):
            getattr(getattr(oracle, theirs), tensor).data = getattr(getattr(block, ours), tensor)
    x, emb = torch.randn(2, 8, 6, 6), torch.randn(2, 12)
    assert torch.allclose(block(x, emb), oracle(x, emb), atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_that_of_a_loop_over_heads(heads):
    torch.manual_seed(0)
    block = Block(16, 16, kind(False, head_channels=16 // heads), attention=True).double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    assert torch.allclose(block._attend(x), naive_attention(block.qkv(x), heads))


def test_a_head_of_adm_has_64_channels():
    with torch.device("meta"):
        built = [
            Block(c, c, kind(True, head_channels=64), attention=True).heads for c in (32, 64, 192)
        ]
    assert built == [0, 1, 3]


def test_group_norm_is_that_of_naive_code():
    torch.manual_seed(0)
    for channels in (8, 12, 192):
        norm = group_norm(channels, 1e-5).double()
        nn.init.normal_(norm.weight)
        x = torch.randn(2, channels, 3, 3, dtype=torch.float64)
        assert torch.allclose(norm(x), naive_norm(x, norm.weight, norm.bias, 1e-5))


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_resampling_is_that_of_a_loop_over_pixels(taps, direction):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    padding = (len(taps) - 1) // 2
    found = resample(x, separable_filter(taps), direction, padding)
    weights = [tap / sum(taps) for tap in taps]
    side = 12 if direction == "up" else 3
    expected = torch.zeros(2, 3, side, side)
    for i in range(6):
        for j in range(6):
            for a, wa in enumerate(weights):
                for b, wb in enumerate(weights):
                    # up: a pixel is spread over taps; down: a pixel gathers them
                    down = [(n + padding - tap) / 2 for n, tap in ((i, a), (j, b))]
                    up = [2 * n - padding + tap for n, tap in ((i, a), (j, b))]
                    r, c = up if direction == "up" else down
                    if r == int(r) and c == int(c) and 0 <= r < side and 0 <= c < side:
                        gain = 4 if direction == "up" else 1
                        expected[:, :, int(r), int(c)] += gain * wa * wb * x[:, :, i, j]
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_residual_path_is_diffusers_fir_downsampling():
    torch.manual_seed(0)
    layer = Conv(3, 8, 3, "down", taps=(1.0, 3.0, 3.0, 1.0), conv_first=True)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(layer(x), naive_conv_down(x, layer.weight, layer.bias), atol=1e-5)


@pytest.mark.parametrize("reaches_end", [False, True])
def test_frequencies_are_those_of_diffusers_embedding(reaches_end):
    from diffusers.models.embeddings import get_timestep_embedding

    time = torch.tensor([-1.2, 0.3, 400.0])
    angles = positional_angles(time, 16, reaches_end=reaches_end)
    expected = get_timestep_embedding(time, 16, downscale_freq_shift=int(reaches_end))
    assert torch.allclose(torch.cat([angles.sin(), angles.cos()], 1), expected, atol=1e-4)
