"""Class-conditional diffusion models behind one interface; our own, and how it is trained."""

from clarep.teachers.unet_teacher import UNetTeacher as UNetTeacher
