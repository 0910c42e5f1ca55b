"""A teacher of functions: the same as the Gaussian teacher that the functions are taken from."""

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clarep.clarid.clarid import Clarid
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.teacher import Teacher
from mixture import MixtureTeacher

ROOT = Path(__file__).parents[2]


def load_linear():
    """The closed-form teacher of tests/clarid."""
    path = ROOT / "tests/clarid/conftest.py"
    spec = importlib.util.spec_from_file_location("gaussian", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LinearTeacher


LinearTeacher = load_linear()


class Doubled(LinearTeacher):
    """A latent model: an image is its latent at twice the size."""

    image_shape = (3, 8, 8)

    def encode(self, images):
        return F.avg_pool2d(images, 2)

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=2)


def of(gaussian, **more):
    """The functions of a teacher, made a teacher again."""
    described = {
        "latent_shape": gaussian.latent_shape,
        "class_names": gaussian.class_names,
        "sigma_min": gaussian.sigma_min,
        "sigma_max": gaussian.sigma_max,
        "taps": gaussian.taps(),
        "fingerprint": "gaussian",
        "dtype": gaussian.dtype,
    }
    return Teacher.from_callable(gaussian.denoise, gaussian.features, **(described | more))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 4, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.tensor([0, 2, 1, 2])


def assert_same(reps, others):
    assert (reps.sigma_te, reps.tap) == (others.sigma_te, others.tap)
    for name, tensor in reps.tensors.items():
        assert torch.equal(tensor, others.tensors[name]), name


@pytest.mark.parametrize("settings", [{}, {"tap": "block1", "branch": "null", "sigma": 0.7}])
def test_clarid_is_the_same_as_with_the_class(images, labels, settings):
    given = {"k": 5, "steps": 4} | settings
    made = Clarid(of(LinearTeacher()), **given)(images, labels, seed=3)
    assert_same(made, Clarid(LinearTeacher(), **given)(images, labels, seed=3))
    assert float((made.x_te - made.latent).norm()) > 0.1


def test_a_latent_model(images, labels):
    gaussian = Doubled()
    made = of(gaussian, image_shape=(3, 8, 8), encode=gaussian.encode, decode=gaussian.decode)
    large = F.interpolate(images, scale_factor=2)
    reps = Clarid(made, k=5, steps=2)(large, labels)
    assert_same(reps, Clarid(gaussian, k=5, steps=2)(large, labels))
    assert reps.x_te.shape == (4, 3, 4, 4)
    assert reps.sample.shape == (4, 3, 8, 8)


def test_a_model_of_grey_pixels_sees_the_mean_channel(images, labels):
    grey = MixtureTeacher((1, 4, 4))
    known = {"latent_shape": (1, 4, 4), "class_names": grey.class_names}
    colour = of(grey, image_channels=3, **known)
    assert (colour.image_shape, colour.latent_shape) == ((3, 4, 4), (1, 4, 4))
    reps = Clarid(colour, k=3, steps=3, sigma=1.0)(images, labels)
    plain = Clarid(of(grey, **known), k=3, steps=3, sigma=1.0)
    alone = plain(images.mean(1, keepdim=True), labels)
    assert torch.allclose(reps.latent, alone.latent)
    assert torch.allclose(reps.sample, alone.sample.expand(-1, 3, -1, -1))
    data = MixtureTeacher().data([0, 1, 2, 1])
    assert len(Clarid(colour, k=3, steps=3)(data.images([0, 1]), data.labels[:2])) == 2
    with pytest.raises(UserError, match="image_channels=3"):
        plain(images, labels)


def test_what_is_not_given():
    gaussian = LinearTeacher()
    teacher = of(gaussian)
    teacher.check_attributes()
    assert teacher.image_shape == (3, 4, 4)
    assert teacher.null_label == 3
    assert teacher.default_tap == "block2"  # the second of two
    assert of(gaussian, taps=dict.fromkeys("abcde", (1, 1))).default_tap == "c"
    assert teacher.sigma_from_t(0.85) == pytest.approx(math.tan(0.85 * math.pi / 2))
    assert teacher.device == torch.device("cpu")
    with pytest.raises(UserError, match=r"sigma 636.619 is outside the teacher's range"):
        teacher.sigma_from_t(0.999)


def test_what_is_given():
    teacher = of(
        LinearTeacher(), default_tap="block1", null_label=-1, sigma_from_t=lambda t: 10 * t
    )
    assert (teacher.default_tap, teacher.null_label) == ("block1", -1)
    assert teacher.sigma_from_t(0.5) == 5
    assert Clarid(teacher, t=0.5).sigma_te == 5
    with pytest.raises(UserError, match="t 1 is outside"):
        teacher.sigma_from_t(1.0)


def test_the_fingerprint_of_a_module_follows_its_weights():
    net = nn.Linear(2, 2).eval()
    first = of(LinearTeacher(), fingerprint=net).fingerprint
    assert first == sha256_state(net)
    with torch.no_grad():
        net.weight[0, 0] += 1
    assert of(LinearTeacher(), fingerprint=net).fingerprint != first
    with pytest.raises(UserError, match=r"is in training mode.*: give module.eval\(\)"):
        of(LinearTeacher(), fingerprint=net.train())


WRONG = {
    "no classes": ({"class_names": ()}, "`class_names` is empty"),
    "no taps": ({"taps": {}}, "taps is empty: give name"),
    "default_tap": ({"default_tap": "blok1"}, "unknown default_tap 'blok1': did you mean block1"),
    "range": ({"sigma_min": 80.0}, "sigma_min 80 and sigma_max 80 are no range"),
    "sigma_min": ({"sigma_min": 0.0}, "sigma_min 0 and sigma_max 80 are no range"),
    "sigma_max": ({"sigma_max": math.inf}, "sigma_max inf are no range"),
    "shape": ({"latent_shape": (0, 4, 4)}, r"latent_shape \(0, 4, 4\) is none"),
    "null label": ({"null_label": 1}, "null_label 1 is the class 'dog'"),
    "encode alone": ({"encode": lambda x: x}, "encode is given and decode is not"),
    "decode alone": ({"decode": lambda x: x}, "decode is given and encode is not"),
    "image_shape alone": ({"image_shape": (3, 8, 8)}, "give encode and decode with it"),
    "grey of colour": ({"image_channels": 3}, "image_channels 3 for a model of 3 channels"),
    "grey twice": (
        {"image_channels": 3, "encode": lambda x: x, "decode": lambda x: x},
        "image_channels is for a model of grey pixels without encode",
    ),
    "fingerprint": ({"fingerprint": ""}, "fingerprint is empty"),
    "device": ({"device": "gpu0"}, "unknown device 'gpu0'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_at_once(case):
    more, words = WRONG[case]
    with pytest.raises(UserError, match=words):
        of(LinearTeacher(), **more)


def test_functions_that_return_something_else(images, labels):
    gaussian = LinearTeacher()

    def made(denoise=gaussian.denoise, features=gaussian.features):
        described = {"latent_shape": (3, 4, 4), "class_names": ["a", "b", "c"], "sigma_min": 0.01}
        return Teacher.from_callable(
            denoise, features, sigma_max=80.0, taps={"t": (1, 1)}, fingerprint="x", **described
        )

    sigma = torch.full((4,), 2.0, dtype=torch.float64)
    flat = made(denoise=lambda x, sigma, labels: x.flatten(1))
    with pytest.raises(UserError, match=r"denoise gave a tensor of shape \(4, 48\) for x of shape"):
        flat.denoise(images, sigma, labels)
    nothing = made(features=lambda x, sigma, labels, tap: None)
    with pytest.raises(UserError, match="features gave a NoneType at t for 4 latents"):
        nothing.features(images, sigma, labels, "t")
    summed = made(features=lambda x, sigma, labels, tap: x.sum(0))
    with pytest.raises(UserError, match=r"features gave a tensor of shape \(3, 4, 4\) at t"):
        summed.features(images, sigma, labels, "t")


class Net(nn.Module):
    """What the documentation's lines are given: a model that knows sigma and labels."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(11, 3)
        self.encoder = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.decoder = nn.ConvTranspose2d(8, 3, 2, stride=2)

    def encode(self, x, sigma, labels):
        shifted = x / (1 + sigma[:, None, None, None]) + self.label(labels)[:, :, None, None]
        return torch.tanh(self.encoder(shifted))

    def forward(self, x, sigma, labels):
        return self.decoder(self.encode(x, sigma, labels))


class TableNet(nn.Module):
    """Grey digits: time is an index into a table, and a torch transformer layer is tapped."""

    def __init__(self):
        super().__init__()
        self.time, self.label = nn.Embedding(1000, 8), nn.Embedding(10, 8)
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.block = nn.Identity()
        self.out = nn.ConvTranspose2d(8, 1, 4, stride=4)

    def forward(self, x, time, labels):
        h = self.patches(x)
        given = (self.time(time) + self.label(labels))[:, None]
        h = self.layer(h.flatten(2).mT + given).mT.unflatten(2, h.shape[2:])
        return self.out(self.block(h))


class FlowNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(3, 8)
        self.first, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.last = nn.ConvTranspose2d(8, 3, 2, stride=2)

    def forward(self, x, time, labels):
        given = (self.label(labels) + time[:, None])[:, :, None, None]
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(x) + given))))


def documented(**names):
    """Run the blocks of the documentation in turn, each on its own network; what each leaves."""
    text = (ROOT / "docs/teachers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = []
    for code, net in zip(blocks, (Net, TableNet, FlowNet), strict=True):
        torch.manual_seed(0)
        left = names | {"net": net()}
        exec(code, left)
        found.append((code, left))
    return found


def test_the_code_of_the_documentation(capsys):
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 7])
    ten_lines, schedule, foreign = documented(images=images, labels=labels)
    code, names = ten_lines
    assert len(code.strip().splitlines()) <= 12
    first, second = names["reps"]
    assert first.latent.shape == (1, 3, 32, 32)
    assert first.features.shape == (1, 8, 16, 16)
    assert (first.tap, int(second.label)) == ("encoder", 7)
    found = schedule[1]["found"]
    assert found["differentiation"]["engine"] == "forward"  # through torch's own layer
    assert found["differentiation"]["features"] == [8, 7, 7]
    assert found["teacher"]["image_shape"] == [3, 28, 28]
    assert "taps         block  8 channels" in capsys.readouterr().out
    teacher = foreign[1]["teacher"]
    assert teacher.taps() == {"first": (8, 1), "middle": (8, 2)}
    x, sigma, cond = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 2.0]), torch.tensor([0, 2])
    share = (sigma / (1 + sigma))[:, None, None, None]  # x_s = (1 - s) x_0 + s eps
    velocity = foreign[1]["net"](x * (1 - share), 1 - share.flatten(), cond)
    expected = x * (1 - share) + share * velocity
    assert torch.allclose(teacher.denoise(x, sigma, cond), expected, atol=1e-6)


def test_what_rounding_a_table_s_time_costs():
    """Half a step of 1,000 is a small change of noise level, as the documentation says."""
    ddpm = DDPM(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0), "epsilon")
    steps = ddpm._log_sigmas.diff()
    above = ddpm._log_sigmas[1:].exp() > 0.35
    assert float(steps[above].max()) / 2 < 0.0055 and float(steps[5]) / 2 < 0.06
