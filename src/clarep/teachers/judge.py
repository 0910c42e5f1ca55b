"""The judge: a small classifier that shares no training image with the bundled teacher."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.engine.artefacts import check_recorded
from clarep.engine.tensors import check_weights, read_tensors, save_tensors
from clarep.errors import UserError

_WIDTHS = (32, 64, 112)
_NUM_CLASSES = 10


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.skip(x) + self.norm2(self.conv2(h)))


class Judge(nn.Module):
    """Small ResNet over garments, about 263,000 parameters; images lie in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.stem = nn.Conv2d(3, fine, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(fine)
        self.blocks = nn.Sequential(
            _Block(fine, fine, 1), _Block(fine, middle, 2), _Block(middle, coarse, 2)
        )
        self.head = nn.Linear(coarse, _NUM_CLASSES)

    def features(self, x: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch 112"]:
        """Return the pooled activations before the linear head."""
        h = F.relu(self.stem_norm(self.stem(x)))  # (B, 32, 16, 16)
        pooled: Tensor = self.blocks(h).mean(dim=(2, 3))  # (B, 112, 4, 4) -> (B, 112)
        return pooled

    def forward(self, x: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch 10"]:
        """Return the logits of the ten garment classes."""
        logits: Tensor = self.head(self.features(x))
        return logits


def save_judge(judge: Judge, path: Path) -> None:
    """Write the weights as fp16 safetensors."""
    weights = {
        name: value.half().contiguous()
        for name, value in judge.state_dict().items()
        if value.is_floating_point()
    }
    save_tensors(path, weights, {"kind": "clarep judge"})


def load_judge(path: Path | None = None) -> Judge:
    """Load the bundled judge, or another that `save_judge` wrote; computing in fp32.

    Raises UserError if the file is missing, damaged, not the one that the judge.json beside it
    tells of, or holds no judge of this shape, or weights that are not finite.
    """
    path = path or Path(str(files("clarep.teachers") / "assets" / "judge.safetensors"))
    weights, metadata = read_tensors(path, "a judge")
    if metadata.get("kind") != "clarep judge":
        raise UserError(f"{path} holds no judge: give a file that clarep train-judge wrote")
    check_recorded(path, path.with_suffix(".json"), "sha256")
    judge = Judge()
    check_weights(weights, judge, str(path))
    # BatchNorm's count of batches is no weight: it is not stored.
    counts = {n: v for n, v in judge.state_dict().items() if not v.is_floating_point()}
    try:
        judge.load_state_dict(counts | weights)
    except RuntimeError as error:
        raise UserError(
            f"{path} holds a judge of another shape: give a file that this version's "
            "clarep train-judge wrote"
        ) from error
    return judge.eval().requires_grad_(False)


def judge_card() -> dict[str, Any]:
    """Return the bundled judge's recipe and test accuracies."""
    path = Path(str(files("clarep.teachers") / "assets" / "judge.json"))
    card: dict[str, Any] = json.loads(path.read_text())
    return card
