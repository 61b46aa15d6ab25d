"""DSN: Bousmalis et al., Domain Separation Networks, NeurIPS 2016.

L = L_task + L_similarity + beta L_difference + alpha L_reconstruction

    L_similarity      DANN's loss; its gradient to the shared features z_c is reversed, gamma times the ramp strong
    L_difference      mean of the entries of H_p' H_c, squared, on each line: private and shared features orthogonal.
                      H is centred, and each feature of unit length
    L_reconstruction  scale-invariant error of Dec(z_c + z_p) against the image, here a thumbnail of 32 pixels

The paper has the sum of those squares, its authors' code the mean, with this beta: at 256 features the term is then
nearly off, in their code as here. Private encoders begin as copies of the source-pretrained one.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.auxiliary import difference_loss, scale_invariant_error
from steelshift.losses.domain import accuracy, adaptation_loss, line_of
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.heads import decoder, discriminator, thumbnails
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp, reverse


class DSN(Method):
    @dataclass(frozen=True)
    class Knobs:
        alpha: float = 0.01
        """Weight of the reconstruction loss, 0 or more."""
        beta: float = 0.075
        """Weight of the difference loss, 0 or more."""
        gamma: float = 0.25
        """Strength of the reversed gradient of the similarity loss at the end of the ramp, 0 or more."""
        hidden: int = 1024
        """Width of the discriminator's hidden layer."""
        dropout: float = 0.5
        """Dropout after the discriminator's hidden layer, 0 to 1."""
        normalized: bool = True
        """Whether the discriminator sees only the direction of features; the paper's sees their size too."""

        def __post_init__(self) -> None:
            for key in ("alpha", "beta", "gamma"):
                hold(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
            hold(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.source_encoder = copy.deepcopy(start.encoder)
        self.target_encoder = copy.deepcopy(start.encoder)
        self.decoder = decoder(start.encoder.width)
        self.adaptation_discriminator = discriminator(
            start.encoder.width, knobs.hidden, 1, dropout=knobs.dropout, normalized=knobs.normalized
        )

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        knobs = self.knobs
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        private_s, private_t = self.source_encoder(source.images), self.target_encoder(target.images)
        z = torch.cat([z_s, z_t])
        task = F.cross_entropy(self.task_classifier(z_s).float(), source.labels[CLASS], ignore_index=-1)
        domain = self.adaptation_discriminator(reverse(z, knobs.gamma * ramp(progress)))
        similarity = adaptation_loss(*domain.split([len(z_s), len(z_t)]))
        difference = difference_loss(private_s, z_s) + difference_loss(private_t, z_t)
        images = thumbnails(torch.cat([source.images, target.images]))
        reconstruction = scale_invariant_error(self.decoder(z + torch.cat([private_s, private_t])), images)
        yield Update(
            task + similarity + knobs.beta * difference + knobs.alpha * reconstruction,
            moves=(
                "shared_encoder", "task_classifier", "source_encoder", "target_encoder", "decoder",
                "adaptation_discriminator",
            ),
            log={
                "L_task": task.detach(),
                "L_similarity": similarity.detach(),
                "L_difference": difference.detach(),
                "L_reconstruction": reconstruction.detach(),
                "accuracy_D_a": accuracy(domain.detach(), line_of(z_s, z_t)),
            },
        )  # fmt: skip
