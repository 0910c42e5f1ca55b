"""Train our U-Net on one GPU at the card's pace: bf16, compiled, batches drawn on the card.

    python tools/train_teacher_gpu.py DATA OUT --seconds 480 [--start-from teacher.safetensors]

The loss, moving average and schedule are those of `clarep train-teacher`; what differs is where
batches are drawn, so that the bytes are not the command's, and the precision of the network's
products. It takes as many steps as fit into the seconds, planned by the speed of its first ones.
Writes OUT/teacher.safetensors, config.json and history.jsonl.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.data.held_out import training_splits
from clarep.data.load import DataConfig
from clarep.engine.artefacts import write_json
from clarep.teachers.denoising import denoising_loss, held_out_losses
from clarep.teachers.teacher_config import TrainConfig, unet_for
from clarep.teachers.unet import UNet, UNetShape, sigma_from_t
from clarep.teachers.unet_teacher import load_unet, save_unet

PLAN_AT = (40, 400, 2_000, 5_000)  # steps: other processes may come and go on the card
UNTIMED = 10
RECORD_EVERY, EVALUATE_EVERY = 250, 2_000


def arguments() -> argparse.Namespace:
    """Return what the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--start-from", type=Path, help="a teacher of ours of the same shape")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--ema-halflife-kimg", type=float, default=500.0)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 192])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--eager", action="store_true")
    return parser.parse_args()


class Drawn:
    """Batches of one seed, drawn on the device."""

    def __init__(self, images: Tensor, labels: Tensor, config: TrainConfig, null_label: int):
        self.images, self.labels, self.config, self.null_label = images, labels, config, null_label
        self.generator = torch.Generator(images.device).manual_seed(config.seed)
        low, high = (2 / math.pi * math.atan(s) for s in (config.sigma_min, config.sigma_max))
        self.t_low, self.t_range = low, high - low

    def uniform(self) -> Tensor:
        size, device = self.config.batch_size, self.images.device
        return torch.rand(size, generator=self.generator, device=device)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen = (self.uniform() * len(self.images)).long().clamp(max=len(self.images) - 1)
        x, labels = self.images[chosen], self.labels[chosen]
        x = torch.where((self.uniform() < 0.5)[:, None, None, None], x.flip(3), x)
        labels = labels.masked_fill(self.uniform() < self.config.label_dropout, self.null_label)
        sigma = sigma_from_t(self.t_low + self.t_range * self.uniform())
        eps = torch.randn(x.shape, generator=self.generator, device=x.device)
        return x, labels, sigma, eps


def records(
    nets: tuple[UNet, UNet], drawn: Drawn, given: argparse.Namespace, started: float
) -> Iterator[dict[str, Any]]:
    """Train until the seconds are over, yielding a record every 250 steps and the last.

    nets: what is trained, and its moving average. Where `held_out` stands in a record, it is due.
    """
    (net, ema), config, device = nets, drawn.config, drawn.images.device
    adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=device.type == "cuda")

    def loss_of(*batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return denoising_loss(net, *batch).mean()

    loss_fn = loss_of if given.eager else torch.compile(loss_of)
    losses, step, steps = [], 0, 10**9
    timed = before = time.perf_counter()
    while step < steps:
        warmup = min(1.0, (step + 1) / config.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * warmup * cosine
        loss = loss_fn(*drawn.batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
        adam.step()
        adam.zero_grad()
        step += 1
        losses.append(loss.detach())
        halflife = min(config.ema_halflife_kimg * 1e3, 0.1 * step * config.batch_size)
        decay = 0.5 ** (config.batch_size / halflife)
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
        if step == UNTIMED:
            loss.item()
            timed = time.perf_counter()
        if step in PLAN_AT:
            loss.item()  # waits for the card
            now = time.perf_counter()
            left = given.seconds - (now - started)
            steps = step + max(1, int(left * (step - UNTIMED) / (now - timed)))
        if step % RECORD_EVERY == 0 or step == steps:
            mean, now = float(torch.stack(losses).mean()), time.perf_counter()
            if not math.isfinite(mean):
                raise SystemExit(f"the loss is {mean} at step {step}: lower --learning-rate")
            speed = len(losses) * config.batch_size / (now - before)
            record = {"step": step, "loss": round(mean, 5), "images_per_s": round(speed, 1)}
            yield record | (
                {"held_out": None} if step % EVALUATE_EVERY == 0 or step == steps else {}
            )
            losses, before = [], time.perf_counter()


def main() -> None:
    """Train, and write what clarep train-teacher writes."""
    given, started = arguments(), time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    splits = training_splits(DataConfig(data=str(given.data)), False, print, print)
    data, held_out, device = splits.trained, splits.held_out, torch.device(given.device)
    shape = UNetShape(widths=tuple(given.widths), encoder_blocks=2, decoder_blocks=2)
    unet = unet_for(data, shape)
    config = TrainConfig(
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        ema_halflife_kimg=given.ema_halflife_kimg,
        evaluate_every=EVALUATE_EVERY,
        unet=unet,
    )
    images = data.images(np.arange(len(data))).to(device)
    drawn = Drawn(images, torch.from_numpy(data.labels).to(device), config, unet.num_classes)
    torch.manual_seed(config.seed)
    net, ema = UNet(unet), UNet(unet).requires_grad_(False)
    if given.start_from is not None:
        net.load_state_dict(load_unet(given.start_from).net.state_dict())
    ema.load_state_dict(net.state_dict())
    net, ema = net.to(device).to(memory_format=torch.channels_last), ema.to(device)
    history = []
    for record in records((net, ema), drawn, given, started):
        if "held_out" in record:
            span = (config.sigma_min, config.sigma_max)
            record["held_out"] = held_out_losses(ema, held_out, *span)
        history.append(record)
        print(json.dumps(record), flush=True)
    step = history[-1]["step"]
    described = {
        "data": data.name,
        "data_sha256": data.sha256(),
        "held_out_sha256": held_out.sha256(),
        "train": asdict(replace(config, steps=step)),
        "precision": "bf16",
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
    write_json(given.out / "config.json", described)
    (given.out / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in history))
    weights, span = given.out / "teacher.safetensors", (config.sigma_min, config.sigma_max)
    save_unet(ema, weights, data.class_names, *span)
    print(f"{step * config.batch_size:,} images, teacher in {weights}")


if __name__ == "__main__":
    main()
