"""The autoencoder of a latent model: images to latents of about unit variance, and back."""

import contextlib
from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clarep.engine.tensors import check_weights, sha256_state
from clarep.errors import UserError
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import joint_fingerprint


class LatentTeacher(ForeignTeacher):
    """A foreign model in the latent space of diffusers' `AutoencoderKL`.

    A subclass sets `vae` after `super().__init__`. `encode` takes the posterior's mode, so that
    the same image always has the same latent.
    """

    vae: Any

    def adopt_vae(self, vae: Any) -> None:
        """Keep the autoencoder, frozen, in float32, where the options say."""
        if self.options.vae_slicing:
            vae.enable_slicing()
        check_weights(vae.state_dict(), vae, "the autoencoder")
        self.vae = vae.eval().requires_grad_(False).float()
        self.fingerprint = joint_fingerprint(self.fingerprint, sha256_state(vae))
        if not self.options.offload:
            self.vae.to(self.device)

    def encode(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        config = self.vae.config
        shift = getattr(config, "shift_factor", None) or 0.0
        with self._vae_at_work(), self.fast():
            mode = self.vae.encode(images.to(self.device)).latent_dist.mode()
        latents: Tensor = (mode.float() - shift) * config.scaling_factor
        return latents

    def decode(self, latents: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        config = self.vae.config
        shift = getattr(config, "shift_factor", None) or 0.0
        with self._vae_at_work(), self.fast():
            images: Tensor = self.vae.decode(latents / config.scaling_factor + shift).sample
        return images.float()

    @contextlib.contextmanager
    def _vae_at_work(self) -> Iterator[None]:
        """Bring the autoencoder to the device while it is in use, where it is offloaded."""
        self.vae.to(self.device)
        try:
            yield
        finally:
            if self.options.offload:
                self.vae.to("cpu")


def image_shape_of(vae: Any, latent_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images whose latents in `vae` have this shape.

    Raises UserError if the autoencoder's latents have another number of channels.
    """
    channels, height, width = latent_shape
    if vae.config.latent_channels != channels:
        raise UserError(
            f"the VAE's latents have {vae.config.latent_channels} channels and the network takes "
            f"{channels}: give a checkpoint whose parts belong together"
        )
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # every block but the last halves
    return vae.config.in_channels, height * factor, width * factor
