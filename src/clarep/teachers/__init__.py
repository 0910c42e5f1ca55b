"""Class-conditional diffusion models behind one interface; our own, and how it is trained."""

from clarep.teachers.judge import Judge, load_judge
from clarep.teachers.quality import frechet_distance, sample_classes, teacher_quality
from clarep.teachers.teacher import Teacher
from clarep.teachers.train import TeacherRun, TrainConfig, held_out_losses, train_teacher
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import UNetTeacher, load_unet, save_unet
from clarep.teachers.zoo import BUNDLED, load_teacher

__all__ = [
    "BUNDLED",
    "Judge",
    "Teacher",
    "TeacherRun",
    "TrainConfig",
    "UNet",
    "UNetConfig",
    "UNetTeacher",
    "frechet_distance",
    "held_out_losses",
    "load_judge",
    "load_teacher",
    "load_unet",
    "sample_classes",
    "save_unet",
    "teacher_quality",
    "train_teacher",
]
