"""A label that is planted in one part of the latents is read from that part alone."""

import pytest
import torch

from clarep.audit.extraneous_part import readable_parts
from clarep.clarid.clareps import CLAReps
from clarep.errors import UserError


def reps(signal_in: str, classes=3, each=40) -> CLAReps:
    """Latents whose first half of places is taken out; the class shifts one of the halves."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(classes * each) % classes
    x_te = torch.randn(len(label), 3, 4, 4, generator=generator)
    shift = torch.randn(classes, 3, 4, 4, generator=generator)
    kept = torch.zeros(3, 4, 4)
    kept[:, 2:] = 1
    x_te += shift[label] * (kept if signal_in == "left" else 1 - kept)
    n = len(label)
    return CLAReps(
        index=torch.arange(n),
        label=label,
        x_te=x_te,
        latent=x_te * kept,
        singular_values=torch.ones(n, 1),
        features=torch.zeros(n, 1),
        sample=torch.zeros(n, 3, 4, 4),
        round_trip_psnr=torch.ones(n),
    )


@pytest.mark.parametrize("where", ["left", "extraneous"])
def test_the_label_is_read_where_it_is(where):
    found = {one.part: one for one in readable_parts(reps(where))}
    other = {"left": "extraneous", "extraneous": "left"}[where]
    assert found[where].accuracy > 0.95 and found["whole"].accuracy > 0.9
    assert found[other].interval[0] < 1 / 3 < found[other].interval[1]
    assert found[where].chance == pytest.approx(1 / 3) and found[where].images == 120
    assert sum(found[where].by_class.values()) / 3 == pytest.approx(found[where].accuracy)
    assert readable_parts(reps(where)) == list(found.values())


def test_too_few_images_tell_nothing():
    for few in (reps("left", each=4), reps("left", classes=1)):
        with pytest.raises(UserError, match="needs 5 images"):
            readable_parts(few)
