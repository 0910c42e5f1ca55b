"""The catalogue of measures: what every figure of the suite is called, its unit, what is better.

Tables, comparison and report know measures from here alone. A new measure is one entry here and
the function that gives its figure; a figure whose key is in no entry is an error.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from clarep.errors import UserError


@dataclass(frozen=True)
class Group:
    """Measures that are asked for together."""

    title: str
    """In words."""
    section: str
    """Of the report, its anchor."""
    settings: tuple[str, ...] = ()
    """Of SuiteConfig: from these the figures of this group follow, and no others."""
    needs: str = ""
    """What it cannot be measured without; empty for what applies to all images."""


_OBJECT = "masks or boxes that tell the object from its background"
MEASURE_GROUPS = {
    "clean": Group("Clean accuracy", "results"),
    "calibration": Group("Calibration", "calibration"),
    "backgrounds": Group("Backgrounds", "backgrounds", ("flip_backdrops",), _OBJECT),
    "focus": Group("Focus", "focus", ("focus_images",), _OBJECT),
    "attacks": Group(
        "Attacks", "attacks", ("attack", "attack_images"), "a radius (`eps_255=2`, say) or `cw`"
    ),
    "corruptions": Group(
        "Corruptions", "corruptions", ("corruptions", "corruption_images", "severities")
    ),
    "ood": Group(
        "Images of other classes", "calibration", needs="images of none of the classes (`ood`)"
    ),
    "beyond": Group("Other test sets", "beyond"),
}


Shown = Literal["compared", "listed", "report"]


@dataclass(frozen=True)
class Measure:
    """What is known of the figures whose keys have one form."""

    pattern: str
    """Of the keys; `*` stands for a setting or a name."""
    heading: str
    """Short name; every `{}` is what a `*` stands for."""
    unit: str
    """In which the figure is given everywhere; a share is a fraction of 1."""
    better: Literal["more", "less", "neither"]
    """Neither where more is no merit and no fault."""
    group: str
    """One of MEASURE_GROUPS."""
    meaning: str
    """For who sees the heading for the first time."""
    shown: Shown = "report"
    """Compared unless other measures are named; listed on the terminal after an evaluation; else
    in the report alone. What is compared is listed, and what is listed is in the report."""

    def settings(self, key: str) -> tuple[str, ...] | None:
        """Return what each `*` stands for in a key; None if the key is not of this form."""
        form = re.escape(self.pattern).replace(r"\*", "(.+)")
        found = re.fullmatch(form, key)
        return None if found is None else found.groups()

    @property
    def unit_and_better(self) -> str:
        """The unit, and less is better where that is so."""
        return self.unit + (", less is better" if self.better == "less" else "")


_RIGHT = "share of images"  # that are classified rightly
_ATTACKS: dict[str, tuple[str, str, Shown]] = {
    "pgd": ("PGD", "projected gradient descent", "listed"),
    "apgd-ce": ("APGD-CE", "PGD that adapts its steps, on the cross-entropy", "report"),
    "apgd-dlr": ("APGD-DLR", "PGD that adapts its steps, on ratios of logits", "report"),
    "autoattack": ("AutoAttack", "the four attacks of AutoAttack", "listed"),
    "worst": ("worst", "the worst of all attacks up to ε, image by image", "listed"),
}


def _attack(name: str, norm: Literal["linf", "l2"]) -> Measure:
    heading, by, shown = _ATTACKS[name]
    if norm == "linf":
        setting, eps, most = "eps_255", "{}/255", "each pixel value by ε at most"
    else:
        setting, eps, most = "eps_l2", "L2 {}", "by ε at most in L2 of pixels in [0, 1]"
    meaning = f"images changed by {by}, {most}, so that the student errs"
    pattern = f"attack/{name}-{norm}/{setting}=*"
    shown = "compared" if (name, norm) == ("pgd", "linf") else shown
    return Measure(pattern, f"{heading} {eps}", _RIGHT, "more", "attacks", meaning, shown)


MEASURES = (
    Measure("clean/accuracy", "clean", _RIGHT, "more", "clean",
            "test images as they are", "compared"),
    Measure("clean/worst_group", "worst group", _RIGHT, "more", "clean",
            "the group of one class and one spurious cue (a scene, say) that is seen worst; a "
            "class's groups of fewer than 5 images count as one, and not at all where that has "
            "fewer, too; the interval allows for the worst being picked", "listed"),
    Measure("clean/conflicting", "conflicting cue", _RIGHT, "more", "clean",
            "images whose spurious cue goes with another class than theirs", "listed"),
    Measure("clean/cue_own", "own cue", _RIGHT, "more", "clean",
            "test images with the cue of their own class", "listed"),
    Measure("clean/cue_random", "random cue", _RIGHT, "more", "clean",
            "test images with the cue of a random class, which no longer helps", "compared"),
    Measure("clean/cue_none", "no cue", _RIGHT, "more", "clean",
            "test images as they were before a cue was added", "listed"),
    Measure("clean/cue_gap", "cue gap", "difference of shares", "less", "clean",
            "what is lost where the cue is of a random instead of the image's class: how much the "
            "student leans on it", "compared"),
    Measure("attack/clean", "clean, attacked", _RIGHT, "more", "attacks",
            "the attacked images as they are", "listed"),
    *(_attack(name, "linf") for name in _ATTACKS),
    *(_attack(name, "l2") for name in _ATTACKS if name != "autoattack"),
    Measure("attack/cw-l2/median_l2", "CW L2, median", "L2 of pixels in [0, 1]", "more", "attacks",
            "distance to the nearest image that fools the student, by Carlini and Wagner's attack",
            "listed"),
    Measure("corruption/mean", "corruptions", _RIGHT, "more", "corruptions",
            "images with noise, blur, weather or compression, mean over all kinds", "compared"),
    Measure("corruption/mce", "mCE", "times the baseline's errors", "less", "corruptions",
            "mean error under corruptions, each relative to the baseline's", "listed"),
    Measure("corruption/*/mean", "{}", _RIGHT, "more", "corruptions",
            "images with this corruption, mean over severities"),
    Measure("corruption/*/severity=*", "{}, severity {}", _RIGHT, "more", "corruptions",
            "images with this corruption"),
    Measure("background/original", "original", _RIGHT, "more", "backgrounds",
            "object and its own background"),
    Measure("background/only_fg", "only_fg", _RIGHT, "more", "backgrounds", "object on black"),
    Measure("background/only_bg", "only_bg", _RIGHT, "less", "backgrounds", "background alone"),
    Measure("background/only_bg_b", "only_bg_b", _RIGHT, "less", "backgrounds",
            "background with the object's box in black"),
    Measure("background/only_bg_t", "only_bg_t", _RIGHT, "less", "backgrounds",
            "background tiled over the object's box"),
    Measure("background/no_fg", "no_fg", _RIGHT, "neither", "backgrounds",
            "background with the object cut out, whose outline may still be read"),
    Measure("background/mixed_same", "mixed_same", _RIGHT, "more", "backgrounds",
            "object on a background of its own class"),
    Measure("background/mixed_rand", "mixed_rand", _RIGHT, "more", "backgrounds",
            "object on a background of a random class, which no longer helps", "compared"),
    Measure("background/mixed_next", "mixed_next", _RIGHT, "more", "backgrounds",
            "object on a background of the next class"),
    Measure("background/gap", "BG-gap", "difference of shares", "less", "backgrounds",
            "what is lost where the background is of a random instead of the object's class "
            "(mixed_same minus mixed_rand): how much the student leans on backgrounds",
            "compared"),
    Measure("background/flipped", "flipped", "share of images seen rightly", "less", "backgrounds",
            "images whose prediction some background flips", "listed"),
    Measure("calibration/ece", "ECE", "0 to 1", "less", "calibration",
            "expected calibration error: how far confidence and accuracy lie apart", "compared"),
    Measure("calibration/adaptive_ece", "adaptive ECE", "0 to 1", "less", "calibration",
            "ECE with as many images in every bin"),
    Measure("calibration/brier", "Brier score", "0 to 2", "less", "calibration",
            "squared distance of the probabilities from the truth"),
    Measure("calibration/nll", "NLL", "nats", "less", "calibration",
            "negative log likelihood of the true class"),
    Measure("ood/*/auroc", "AUROC against {}", "0 to 1", "more", "ood",
            "how often an own image is answered more surely than one of no class; 0.5 is chance",
            "listed"),
    Measure("beyond/*/accuracy", "{}", _RIGHT, "more", "beyond",
            "a natural test set; where it has fewer classes than the student, among those alone",
            "listed"),
    Measure("focus/input_gradient", "input gradient on object", "share of energy", "more", "focus",
            "the gradient's energy that lies on the object", "listed"),
    Measure("focus/integrated_gradients", "integrated gradients on object", "share of energy",
            "more", "focus", "the same of integrated gradients"),
    Measure("focus/area", "area of object", "share of pixels", "neither", "focus",
            "what a student that does not care where the object is reaches", "listed"),
)  # fmt: skip
"""All of them, in the order of tables."""
DEFAULT_MEASURES = tuple(one.pattern for one in MEASURES if one.shown == "compared")


def fixed_keys(group: str) -> tuple[str, ...]:
    """Return the keys of a group's measures that have no setting."""
    return tuple(one.pattern for one in MEASURES if one.group == group and "*" not in one.pattern)


@cache
def measure_of(key: str) -> Measure:
    """Return the entry of a figure's key; raises UserError if it is in none."""
    for measure in MEASURES:
        if measure.settings(key) is not None:
            return measure
    raise UserError(
        f"this clarep knows no measure '{key}': give an evaluation that it made, "
        "or add the measure to its catalogue"
    )


def heading_of(key: str) -> str:
    """Return the short name of a figure, such as PGD 1/255; raises UserError as `measure_of`."""
    measure = measure_of(key)
    return measure.heading.format(*(measure.settings(key) or ()))
