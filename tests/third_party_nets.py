"""Networks of others' weights, written anew from their names; `third_party` loads them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sines(time: Tensor, width: int) -> Tensor:
    half = torch.arange(width // 2, dtype=time.dtype, device=time.device)
    angles = time[:, None] * torch.exp(half * (-math.log(10_000) / (width // 2 - 1)))
    return torch.cat([angles.sin(), angles.cos()], 1)


# CIFAR-10 ResNets, He et al. 2016 (arXiv 1512.03385), section 4.2, shortcuts of option A.


class Basic(nn.Module):
    def __init__(self, inside: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - inside

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        before = self.added // 2
        return (h + F.pad(shortcut, (0, 0, 0, 0, before, self.added - before))).relu()


class CifarResNet(nn.Module):
    """Images in [-1, 1] to logits of CIFAR-10's classes."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        for i, (inside, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            first = Basic(inside, width, 1 if i == 1 else 2)
            rest = [Basic(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{i}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        mean, deviation = images.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        x = ((images + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
        x = self.bn1(self.conv1(x)).relu()
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
        return self.linear(x.mean((2, 3)))


# Digits: a pixel transformer that predicts x_0 along a straight path.


class PixelViT(nn.Module):
    """Grey pixels in [0, 1]; its time is the share of data."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, 64, 7, 7)
        self.pos_embed = nn.Parameter(torch.zeros(1, 16, 64))
        self.transformer = nn.Sequential(
            *(nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True) for _ in "four")
        )
        self.unpatch = nn.ConvTranspose2d(64, 1, 7, 7)
        self.y_encoder = nn.Embedding(11, 128)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).mT + self.pos_embed
        given = torch.cat([sines(time, 128), self.y_encoder(labels)], 1).unflatten(1, (4, 64))
        tokens = self.transformer(torch.cat([tokens, given], 1))[:, :16]
        return self.unpatch(tokens.mT.unflatten(2, (4, 4)))


# Digits: a convolutional flow on the latents of an autoencoder.


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(self, name, nn.Linear(width, inner))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        q, k, v = (
            proj(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out_proj(mixed).mT.unflatten(2, x.shape[2:])


class Separable(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(width, inner, 1),
            nn.GELU(),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, padding_mode="reflect"),
            nn.GELU(),
            nn.Conv2d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.network(x)


class Conformer(nn.Sequential):
    def __init__(self, inner: int):
        super().__init__()
        self.attn, self.conv = Attention(32, 3, inner), Separable(32, 128)


class LatentFlow(nn.Module):
    """Latents (1, 6, 6); predicts x_0 - eps, its time is the share of data."""

    def __init__(self):
        super().__init__()
        first, last = nn.Conv2d(3, 32, 5, 1, 2), nn.Conv2d(32, 1, 5, 1, 2)
        self.network = nn.Sequential(first, nn.GELU(), Conformer(24), nn.GELU(), last)
        self.yemb, self.temb = nn.Linear(10, 36, bias=False), nn.Linear(10, 36)
        self.nums = nn.Parameter(torch.zeros(10))
        self.log_scalar = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        near = ((time[:, None] - self.nums) ** 2 / self.log_scalar.exp()).exp()
        one_hot = F.one_hot(labels, 11)[:, :10].to(x)  # of none all zeros
        given = [self.temb(near), self.yemb(one_hot)]
        maps = [one.reshape(-1, 1, 6, 6) for one in given]
        return self.network(torch.cat([x, *maps], 1))


class Autoencoder(nn.Module):
    """Grey pixels in [0, 1] to the mean of their latent, and back."""

    def __init__(self):
        super().__init__()
        middle = [Conformer(18) for _ in range(3)]
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, 1, 1, padding_mode="reflect"),
            nn.GELU(),
            nn.MaxPool2d(2),
            *middle,
            nn.Conv2d(32, 2, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(1, 32, 1),
            *(Conformer(18) for _ in range(3)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 16, 3, 1, 1, padding_mode="reflect"),
            nn.Upsample(28),
            nn.Conv2d(16, 1, 5, 1, 2),
        )

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder((images.mean(1, keepdim=True) + 1) / 2)[:, :1]

    def decode(self, latents: Tensor) -> Tensor:
        return (self.decoder(latents) * 2 - 1).expand(-1, 3, -1, -1)


# Digits: a DiT (Peebles & Xie 2023, arXiv 2212.09748) of a DDPM, without a null class.


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("gamma1", "beta1", "alpha1", "gamma2", "beta2", "alpha2"):
            setattr(self, name, nn.Linear(64, 64))
        for name in ("wq", "wk", "wv"):
            setattr(self, name, nn.Linear(64, 256))
        self.ln1, self.ln2, self.lv = nn.LayerNorm(64), nn.LayerNorm(64), nn.Linear(256, 64)
        self.ff = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        h = self.ln1(x) * (1 + self.gamma1(given)) + self.beta1(given)
        heads = (
            one(h).unflatten(2, (4, 64)).transpose(1, 2) for one in (self.wq, self.wk, self.wv)
        )
        scale = 1 / math.sqrt(x.shape[1])  # of the number of tokens: so it was trained
        mixed = F.scaled_dot_product_attention(*heads, scale=scale).transpose(1, 2).flatten(2)
        x = x + self.alpha1(given) * self.lv(mixed)
        h = self.ln2(x) * (1 + self.gamma2(given)) + self.beta2(given)
        return x + self.alpha2(given) * self.ff(h)


class Sines(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("half_emb", torch.zeros(32))

    def forward(self, time: Tensor) -> Tensor:
        return sines(time, 64)


class DiT(nn.Module):
    """Grey pixels in [-1, 1]; predicts eps, its time is the step of 1,000."""

    def __init__(self):
        super().__init__()
        self.conv, self.patch_emb = nn.Conv2d(1, 16, 4, 4), nn.Linear(16, 64)
        self.patch_pos_emb = nn.Parameter(torch.zeros(1, 49, 64))
        self.time_emb = nn.Sequential(Sines(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        self.label_emb = nn.Embedding(10, 64)
        self.dits = nn.ModuleList(Block() for _ in range(3))
        self.ln, self.linear = nn.LayerNorm(64), nn.Linear(64, 16)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        tokens = self.patch_emb(self.conv(x).flatten(2).mT) + self.patch_pos_emb
        given = (self.label_emb(labels) + self.time_emb(time))[:, None]
        for block in self.dits:
            tokens = block(tokens, given)
        return F.pixel_shuffle(self.linear(self.ln(tokens)).mT.unflatten(2, (7, 7)), 4)
