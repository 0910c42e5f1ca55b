"""Class-conditional diffusion models behind one interface; our own, and how it is trained."""

from clarep.teachers.denoising import held_out_losses
from clarep.teachers.teacher import Teacher
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.teacher_run import TeacherRun
from clarep.teachers.unet import UNet, UNetConfig, UNetShape
from clarep.teachers.unet_teacher import UNetTeacher, load_unet, save_unet
from clarep.teachers.zoo import BUNDLED, load_teacher

__all__ = [
    "BUNDLED",
    "Teacher",
    "TeacherRun",
    "TrainConfig",
    "UNet",
    "UNetConfig",
    "UNetShape",
    "UNetTeacher",
    "held_out_losses",
    "load_teacher",
    "load_unet",
    "save_unet",
]
