"""One stage of a stacked GAN: images of h and noise, told apart by an opponent."""

import math
from collections.abc import Callable, Sequence

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from inverters.adversarial import Adversarial
from inverters.discriminator import Discriminator, strided
from inverters.feature_loss import FeatureLoss
from inverters.generators import ImageShape, check_images
from inverters.mirrored import mirrored, squashed
from inverters.representation import Representation

NUM_FIXED = 256  # noises that validation and test take


class StackedGAN(Adversarial):
    """The `mirrored` layers from (h, noise) to an image, trained by three losses (Huang et al. 2017, section 3).

    The conditional loss: the features of the image are the h that it is made of. The entropy loss: an encoder, trained
    with the generator, recovers the noise from the image, by squared error, which is -log Q(z | x) of a Gaussian and
    so bounds the entropy of images given h; its weight sets how diverse draws are. The adversarial loss: a
    discriminator takes them for real ones. There is no likelihood.

    Each loss is a mean, over features (standardised) or over noise. Differs: the discriminator is of hinge losses with
    spectral normalisation, shares no weights with the encoder, and may see h.

    Args:
        image_shape: (C, H, W).
        context_shape: (K,) or (K, H', W'); (0,) for an unconditional model, which can have no conditional loss.
        filters: Of the feature maps as ConvNet has them, the stage next to the image first.
        num_hidden: Units between a vector h and the first map.
        depth: How many layers of so many units: before the first map, and of encoder and discriminator (of its own
            number) behind their convolutions. 1 is for digits; a noise that is to choose one of many images needs 2.
        num_noise: Numbers of noise, which go beside a vector h, or to every place of a map; scaled so that together
            they weigh as much there as h, or training would begin by ignoring them.
        conditional_weight: Of the features that should be h; 0 leaves a part out, here as below.
        entropy_weight: Of the noise that should be recovered.
        adversarial_weight: Of the discriminator's opinion.
        discriminator_filters: Of its convolutions, and the encoder's, each of which halves the side.
        discriminator_sees_h: Whether it is asked if an image is a real one of this h, not only if it is real; needed
            where the layer gives pixels no gradient, as there can be no conditional loss.
        gradient_penalty: Of the discriminator, instead of spectral normalisation, where it is not 0: for worlds of few
            sharp images, as 0.02. Steps cannot be compiled then.
        discriminator_lr: Its learning rate.
        discriminator_betas: Its betas of Adam.

    Raises:
        ValueError: All weights are 0, a beta is none, or h or the image is none that such layers or such a loss can be
            of.
    """

    called = "stacked GAN"
    noises: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        filters: Sequence[PositiveInt] = (32, 32),
        num_hidden: PositiveInt = 256,
        depth: PositiveInt = 1,
        num_noise: PositiveInt = 16,
        conditional_weight: NonNegativeFloat = 1.0,
        entropy_weight: NonNegativeFloat = 1.0,
        adversarial_weight: NonNegativeFloat = 0.1,
        discriminator_filters: Sequence[PositiveInt] = (32, 64),
        discriminator_sees_h: bool = False,
        gradient_penalty: NonNegativeFloat = 0.0,
        discriminator_lr: PositiveFloat = 1e-3,
        discriminator_betas: tuple[float, float] = (0.5, 0.99),
    ) -> None:
        super().__init__()
        self.image_shape, self.num_noise = image_shape, int(num_noise)
        self.entropy_weight = float(entropy_weight)
        self.weigh({
            "conditional": conditional_weight, "entropy": entropy_weight, "adversarial": adversarial_weight
        })  # fmt: skip
        noises = torch.randn(NUM_FIXED, self.num_noise, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noises", noises, persistent=False)
        self.layers = mirrored(image_shape, context_shape, filters, num_hidden, depth, self.num_noise)
        self.offset = nn.Parameter(torch.zeros(image_shape[0], 1, 1))
        self.encoder: nn.Sequential | None = None
        if entropy_weight:
            layers = strided(image_shape, discriminator_filters, num_hidden, depth)
            self.encoder = nn.Sequential(*layers, nn.Linear(num_hidden, self.num_noise))
        if adversarial_weight:
            sees_h = discriminator_sees_h and math.prod(context_shape) > 0
            opponent = Discriminator(
                image_shape, context_shape, discriminator_filters, sees_h, float(gradient_penalty), depth
            )
            self.play_against(opponent, discriminator_lr, discriminator_betas)
        self.features: FeatureLoss | None = None

    def meet(self, representation: Representation, standardised: Callable[[Tensor], Tensor]) -> None:
        if "conditional" in self.weights:
            self.features = FeatureLoss(representation, standardised, None, self.image_shape, "conditional_weight")

    def made(self, context: Tensor, noise: Tensor) -> Tensor:
        """The images of h [B, ...] and noise [B, N]: [B, C, H, W] in [0, 1], in float32 or wider."""
        noise = math.sqrt(context.shape[1] / self.num_noise or 1.0) * noise
        places = noise.view(*noise.shape, *(1 for _ in context.shape[2:])).expand(-1, -1, *context.shape[2:])
        return squashed(self.layers(torch.cat([context, places], dim=1)) + self.offset)

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        """Start as bright as images are, or the discriminator's first push leaves all black, which has no gradient."""
        mean = image.to(self.offset.dtype).mean(dim=(0, 2, 3), keepdim=True)[0] / 255
        self.offset.copy_(mean.logit(eps=0.01))

    def losses(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        noise = torch.randn(len(image), self.num_noise, dtype=context.dtype, device=context.device)
        return self._losses(image, context, noise)

    def _losses(self, image: Tensor, context: Tensor, noise: Tensor) -> dict[str, Tensor]:
        check_images(image, self.image_shape)
        made = self.made(context, noise)
        found = {}
        if self.features is not None:
            found["conditional"] = self.features.of(made, context)
        if self.encoder is not None:
            found["entropy"] = (self.encoder(2 * made - 1) - noise).square().mean(dim=1)
        if self.discriminator is not None:
            found |= self.discriminator.losses(image.to(made.dtype) / 255, made, context)
        return {"loss": self.total(found), **found}

    def evaluation(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        """As `losses`, with one of a few fixed noises for each image, which is a function of the image alone."""
        return self._losses(image, context, self.noises[image.flatten(1).long().sum(dim=1) % NUM_FIXED])

    @torch.no_grad()
    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        noise = torch.stack([torch.randn(self.num_noise, generator=g) for g in generators]).to(context)
        return (255 * self.made(context, noise)).round().to(torch.uint8)
