"""What Jacobian products, subspaces and CLARID cost on a GPU, by precision and engine.

python tools/gpu_solver.py PART OUT [--tiny], PART one of dit, sd, unet; each measurement is a line
of JSON in OUT. Networks of random weights; --tiny to try the script itself on a processor.
"""

import json
import string
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from clarep.clarid.clarid import Clarid
from clarep.geometry import krylov
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.precision import Precision
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
LOW: tuple[Precision, ...] = ("fp32", "tf32", "bf16") if GPU else ("fp32",)


def seconds(work: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Return the least seconds of some runs, and what the last one gave."""
    best = float("inf")
    for _ in range(times):
        if GPU:
            torch.cuda.synchronize()
        started = time.perf_counter()
        found = work()
        if GPU:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best, found


class Bench:
    """Measures one teacher, and writes each number at once."""

    def __init__(self, name: str, teacher: Teacher, out: Path, t: float = 0.85) -> None:
        self.name, self.teacher, self.out, self.t = name, teacher, out, t

    def say(self, **values: Any) -> None:
        """Append a line."""
        gb = torch.cuda.max_memory_allocated() / 1e9 if GPU else 0.0
        line = json.dumps({"model": self.name, "gb": round(gb, 2), **values})
        print(line, flush=True)
        with self.out.open("a") as file:
            file.write(line + "\n")
        if GPU:
            torch.cuda.reset_peak_memory_stats()

    def point(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return noisy latents and labels."""
        generator = torch.Generator().manual_seed(0)
        sigma = self.teacher.sigma_from_t(self.t)
        x = torch.randn(batch, *self.teacher.latent_shape, generator=generator)
        labels = torch.arange(batch) % self.teacher.num_classes
        return (x * (1 + sigma**2) ** 0.5).to(DEVICE), labels.to(DEVICE)

    def function(
        self, x: torch.Tensor, labels: torch.Tensor
    ) -> tuple[Any, tuple[torch.Tensor, ...]]:
        """Return features as a function of x, sigma and condition, and the latter two."""
        cond = self.teacher.condition(labels)
        sigma = x.new_full((len(x),), self.teacher.sigma_from_t(self.t))
        tap = self.teacher.default_tap
        if torch.is_tensor(cond):
            return lambda y, s, c: self.teacher.features(y, s, c, tap), (sigma, cond)
        return lambda y, s: self.teacher.features(y, s, cond, tap), (sigma,)

    def subspaces(
        self,
        batch: int,
        k: int,
        compiled: tuple[Precision, ...] = (),
        precisions: tuple[Precision, ...] = LOW,
    ) -> None:
        """Measure bases by precision, eager and compiled, and the energy they hold in fp32."""
        x, labels = self.point(batch)
        function, given = self.function(x, labels)
        exact = Jacobian(lambda y: function(y, *given), x)
        energy = None
        for precision in precisions:
            for engine in ("eager", "compiled"):
                if engine == "compiled" and precision not in compiled:
                    continue
                products = CompiledProducts(function, batch, precision=precision)
                about = {"what": "basis", "batch": batch, "k": k, "precision": precision}
                about["engine"] = engine

                def solve(p: Any = products, e: str = engine, q: Precision = precision) -> Any:
                    if e == "compiled":
                        J: Jacobian = CompiledJacobian(p, x, given)
                    else:
                        J = Jacobian(lambda y: function(y, *given), x, precision=q)
                    return J.top_subspace(k, torch.Generator().manual_seed(1), "energy", 0.01)

                try:
                    if engine == "eager":  # what is loaded at first use
                        exact.rmatmat(exact.matmat(torch.randn(batch, exact.n, 1, device=DEVICE)))
                    spent, found = seconds(solve)
                    again = seconds(solve)[0] if engine == "compiled" else spent
                except Exception as error:
                    self.say(**about, failed=repr(error)[:300])
                    continue
                held = exact.matmat(found.V).double().square().sum((1, 2))
                energy = held if energy is None else energy
                self.say(
                    **about,
                    first_s=spent,
                    image_s=again / batch,
                    products=found.products,
                    energy_to_fp32=float((held / energy).min()),
                    error=float(found.error.max()),
                    failure=products.failure,
                )

    def orthogonalisation(self, batch: int, k: int) -> None:
        """Measure the solver with and without Gram matrices, in the precision that is usual."""
        x, labels = self.point(batch)
        function, given = self.function(x, labels)
        gram = krylov._leading
        for name, way in (("gram", gram), ("householder", lambda *_: None)) * 2:
            krylov._leading = way

            def solve() -> Any:
                J = Jacobian(lambda y: function(y, *given), x, precision=LOW[:2][-1])
                return J.top_subspace(k, torch.Generator().manual_seed(1), "energy", 0.01)

            spent, _ = seconds(solve)
            self.say(what="orthogonalisation", way=name, batch=batch, k=k, image_s=spent / batch)
        krylov._leading = gram

    def whole(self, batch: int, k: int, **settings: Any) -> None:
        """Measure CLARID, from images to samples, and its stages."""
        clarid = Clarid(self.teacher, t=self.t, k=k, **settings)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(batch, *self.teacher.image_shape, generator=generator)
        labels = torch.arange(batch) % self.teacher.num_classes
        clarid(images, labels)
        clarid = Clarid(self.teacher, t=self.t, k=k, **settings)
        spent, _ = seconds(lambda: clarid(images, labels))
        stages = {n: round(v, 3) for n, v in vars(clarid.ledger).get("seconds", {}).items()}
        self.say(what="clarid", batch=batch, k=k, image_s=spent / batch, stages=stages, **settings)


def dit(tiny: bool) -> Teacher:
    """Return a DiT-XL/2 of random weights at 256 px."""
    shape: dict[str, Any] = {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28}
    blocks = (128, 256, 512, 512)
    if tiny:
        shape = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
        blocks = (8, 8, 8, 8)
    with torch.device(DEVICE):
        net = diffusers.DiTTransformer2DModel(
            in_channels=4,
            out_channels=8,
            sample_size=8 if tiny else 32,
            patch_size=2,
            norm_type="ada_norm_zero",
            num_embeds_ada_norm=1000,
            **shape,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=blocks,
            norm_num_groups=4 if tiny else 32,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        for parameter in net.parameters():  # layers that start at zero would hide those before them
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        diffusers.DiTPipeline(net, vae, diffusers.DDIMScheduler()).save_pretrained(folder)
        del net, vae
        return load_teacher(f"dit:{folder}", TeacherOptions(device=DEVICE, bf16=GPU))


def stable_diffusion(tiny: bool) -> Teacher:
    """Return a Stable Diffusion 1.5 of random weights at 512 px, its text encoder but for depth."""
    shape: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
    blocks = (128, 256, 512, 512)
    if tiny:
        shape = {"sample_size": 8, "cross_attention_dim": 768, "norm_num_groups": 4}
        shape["block_out_channels"], blocks = (8, 8, 8, 8), (8, 8, 8, 8)
    text = transformers.CLIPTextConfig(
        vocab_size=56,
        hidden_size=768,
        intermediate_size=768,
        num_hidden_layers=1,
        num_attention_heads=12,
        max_position_embeddings=24,
        bos_token_id=54,
        eos_token_id=55,
        pad_token_id=55,
    )
    tokens = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens += ["ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder, torch.device(DEVICE):
        words = Path(folder) / "words"
        words.mkdir()
        numbered = {token: i for i, token in enumerate(tokens)}
        (words / "vocab.json").write_text(json.dumps(numbered))
        (words / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 24}
        (words / "tokenizer_config.json").write_text(json.dumps(config))
        diffusers.StableDiffusionPipeline(
            vae=diffusers.AutoencoderKL(
                block_out_channels=blocks,
                norm_num_groups=4 if tiny else 32,
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            text_encoder=transformers.CLIPTextModel(text),
            tokenizer=transformers.CLIPTokenizer.from_pretrained(words),
            unet=diffusers.UNet2DConditionModel(**shape),
            scheduler=diffusers.DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(Path(folder) / "sd")
        names = Path(folder) / "names.txt"
        names.write_text("cat\ncoffee\nowl\n")
        options = TeacherOptions(device=DEVICE, bf16=GPU, class_names=names)
        return load_teacher(f"sd:{Path(folder) / 'sd'}", options)


def main(part: str, out: Path, tiny: bool) -> None:
    """Measure one part."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if part == "dit":
        bench = Bench("DiT-XL/2", dit(tiny), out)
        few, k = (2, 4) if tiny else (8, 41)
        bench.subspaces(few, k)
        bench.whole(few, k)
        bench.whole(1, k)
        bench.subspaces(1, k, precisions=LOW[:2])
        bench.orthogonalisation(few, k)
        if not tiny:
            bench.subspaces(few, 164, precisions=LOW[1:])
            bench.whole(few, 164)
        bench.subspaces(few, k, LOW[1:2], precisions=LOW[1:2])
    if part == "sd":
        bench = Bench("SD 1.5, 512 px", stable_diffusion(tiny), out)
        few, k = (1, 4) if tiny else (4, 32)
        bench.subspaces(few, k, ("tf32",) if GPU else ())
        bench.whole(few, k)
    if part == "unet":
        for name, many in (("backdrops", 4 if tiny else 256), ("cifar10", 4 if tiny else 256)):
            bench = Bench(name, load_teacher(name, TeacherOptions(device=DEVICE)), out)
            bench.subspaces(many, 8 if tiny else 123)
            bench.orthogonalisation(many, 8 if tiny else 123)
            bench.whole(many, 8 if tiny else 123, batch_size=many)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), "--tiny" in sys.argv)
