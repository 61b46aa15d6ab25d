"""The inspector: bytes of an image to class and probability, as a network with its preprocessing inside, and a folder.

    inspector/  inspector.json  model.safetensors  reference.safetensors  golden/  MODEL_CARD.md  SHA256SUMS

The folder holds weights as safetensors and everything else as JSON and PNG; reading it runs no code.
"""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from steelshift.data.decode import Unreadable, decode, picture_of
from steelshift.errors import ArtifactRefused, SteelshiftError
from steelshift.files import write_atomically, write_json, write_text
from steelshift.inspection import reference
from steelshift.inspection.heat import Heat, features_with_maps, heat_of
from steelshift.inspection.opening import place_of
from steelshift.inspection.reference import Reference
from steelshift.inspection.sharpen import sharpen
from steelshift.inspection.specification import SCHEMA, Answer, Specification
from steelshift.inspection.sums import check_sums, sha256, write_sums
from steelshift.nn.encoders import build_encoder, last_convolution
from steelshift.nn.heads import Heads, task_classifier
from steelshift.nn.sharing import sharing_of
from steelshift.resample import grey_levels, resample, to_grey, whole
from steelshift.selection.answers import Answers
from steelshift.tensors import write_tensors

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden probability that still counts as the same inspector on another processor."""


_ALONE = threading.Lock()
"""Maps are taken by hooks on layers, which two passes at once would mix up; one asks for all cores anyway."""


class Inspector(nn.Module):
    """Grey or colour pixels to calibrated class probabilities; resizing and normalization are in the graph."""

    def __init__(self, specification: Specification) -> None:
        super().__init__()
        self.specification = specification
        heads = specification.heads
        sharing = sharing_of(specification.sharing, specification.ratios, len(heads)) if heads else None
        self.encoder = build_encoder(
            specification.encoder, specification.size, feature=specification.feature, sharing=sharing
        )
        if sharing is None:
            self.classifier = task_classifier(self.encoder.width, len(specification.classes))
        else:
            self.classifier = Heads([(head.kind, len(head.classes)) for head in heads], self.encoder.trunk.ends)
        self.reference: Reference | None = None
        self.identity = ""
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, C), C = 1 or 3 -> probabilities float32 (B, K), of all tasks side by side."""
        return self.probabilities(self.prepare(images))

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, C) -> float32 (B, 1, S, S) in [0, 255]."""
        return resample(to_grey(images), whole(images), self.specification.size)

    def logits(self, prepared: Tensor) -> Tensor:
        """float32 (B, 1, S, S) -> uncalibrated logits (B, K)."""
        return self.classifier(self.encoder(prepared))

    def probabilities(self, prepared: Tensor) -> Tensor:
        """float32 (B, 1, S, S) -> calibrated probabilities (B, K)."""
        return self.calibrated(self.logits(prepared))

    def calibrated(self, logits: Tensor) -> Tensor:
        """Logits (B, K) -> probabilities (B, K), each task's by itself."""
        if not self.specification.heads:
            return (logits / self.specification.temperature).softmax(1)
        parts = []
        for head, where in zip(self.specification.heads, self.specification.columns.values(), strict=True):
            scaled = logits[:, where] / head.temperature
            parts.append(scaled.sigmoid() if head.kind == "multi-label" else scaled.softmax(1))
        return torch.cat(parts, 1)

    @torch.inference_mode()
    def score(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (B, H, W, C) of any shapes -> calibrated probabilities float32 (sum of B, K), in one batch."""
        prepared = [self.prepare(torch.from_numpy(np.ascontiguousarray(images))) for images in groups]
        return self.probabilities(torch.cat(prepared)).numpy()

    @cached_property
    def drawing(self) -> tuple[nn.Module, Heat] | None:
        """The layer that reads the last maps, and heat from them; None for networks of a form that is not known."""
        return None if self.specification.heads else heat_of(self.encoder, self.classifier)

    def features_and_maps(self, even: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (B, 1, S, S), evenly lit -> features (B, F), and last maps (B, C, h, w) where heat needs them."""
        if self.drawing is None:
            return self.encoder.features(even), None
        return features_with_maps(self.encoder, self.drawing[0], even)

    @torch.inference_mode()
    def answer(self, groups: Sequence[np.ndarray], *, maps: bool = False) -> Answer:
        """As `score`, with features and, where asked, what heat maps are drawn from."""
        with _ALONE:
            prepared = torch.cat([self.prepare(torch.from_numpy(np.ascontiguousarray(images))) for images in groups])
            found = None
            if maps:
                features, found = self.features_and_maps(self.encoder.even(prepared))
            else:
                features = self.encoder(prepared)
            probabilities = self.calibrated(self.classifier(features))
            if maps and found is None:
                found = prepared  # heat needs a pass of its own
        return Answer(probabilities.numpy(), features.numpy(), None if found is None else found.numpy())

    def heat(self, maps: np.ndarray) -> np.ndarray:
        """Maps of an answer -> heat of the best class, of the first task, float32 (B, h, w) in [0, 1]."""
        given = torch.from_numpy(maps)
        if self.drawing is None:
            with _ALONE:
                with torch.no_grad():
                    best = self.logits(given)[:, next(iter(self.specification.columns.values()))].argmax(1)
                heat = self.evidence(given, best).numpy()
            return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)
        with torch.inference_mode():
            return self.drawing[1](given).numpy()

    def calibrate(self, **fields: Any) -> None:
        """Set temperature, thresholds and such of the specification."""
        self.specification = dataclasses.replace(self.specification, **fields)

    def load_weights(self, tensors: dict[str, Tensor]) -> "Inspector":
        self.load_state_dict(tensors)
        return self

    def heat_maps(self, prepared: Tensor, of_class: Tensor) -> Tensor:
        """Where in the image the evidence for a class lies: float (B, S, S) in [0, 1].

        prepared: (B, 1, S, S) in [0, 255]. of_class: int64 (B,), with several tasks the place of its probability.
        """
        grey = grey_levels(prepared)
        evidence = self.evidence(prepared, of_class).cpu().numpy()
        return torch.from_numpy(np.stack([sharpen(*pair) for pair in zip(evidence, grey, strict=True)]))

    def evidence(self, prepared: Tensor, of_class: Tensor) -> Tensor:
        """For a class at the positions of the last convolution: float (B, h, w), 0 or more, in no unit.

        Grad-CAM (Selvaraju et al. 2017), chosen on synthetic lines among layers and kinds of maps.
        """
        kept: list[Tensor] = []
        hook = last_convolution(self.encoder).register_forward_hook(lambda _, __, maps: kept.append(maps))
        try:
            with torch.enable_grad():
                score = self.logits(prepared.detach().requires_grad_(True)).gather(1, of_class[:, None]).sum()
                gradient = torch.autograd.grad(score, kept[0])[0]
        finally:
            hook.remove()
        weights = gradient.mean((2, 3), keepdim=True)
        return (kept[0].detach().clamp(min=0) * weights).sum(1).clamp(min=0).float()


@torch.inference_mode()
def in_batches(
    function: Callable[[Tensor], Tensor], prepared: Tensor, batch: int = 64, *, device: torch.device | None = None
) -> np.ndarray:
    """Apply a function of tensors to (N, 1, S, S), some at a time on a device; the results in one array."""
    return torch.cat([function(part.to(device)).cpu() for part in prepared.split(batch)]).numpy()


@torch.inference_mode()
def answers(inspector: Inspector, prepared: Tensor, batch: int = 64) -> Answers:
    """Features and uncalibrated logits of (N, 1, S, S), in one pass."""
    device = next(inspector.parameters()).device
    features = [inspector.encoder(part.to(device)) for part in prepared.split(batch)]
    logits = [inspector.classifier(part) for part in features]
    return Answers(torch.cat(features).cpu().numpy(), torch.cat(logits).cpu().numpy())


def save(inspector: Inspector, folder: Path, card: str, golden: list[np.ndarray]) -> None:
    """Write an inspector with golden examples, uint8 (H, W, C) each, and their probabilities. Raises RunFailed."""
    specification = inspector.specification
    if inspector.reference is not None:
        reference.save(inspector.reference, folder)
    write_tensors(folder / "model.safetensors", inspector.state_dict())
    write_json(folder / "inspector.json", dataclasses.asdict(specification))
    write_text(folder / "MODEL_CARD.md", card)
    expected = []
    for number, pixels in enumerate(golden):
        name = f"{number:02d}.png"
        picture = picture_of(pixels)
        write_atomically(folder / "golden" / name, lambda file, picture=picture: picture.save(file, "PNG"))
        expected.append({"image": name, "probabilities": _probabilities(inspector, pixels)})
    write_json(folder / "golden" / "expected.json", expected)
    write_sums(folder)


def load(folder: Path) -> Inspector:
    """Read an inspector, or the one of a run. Raises ArtifactRefused, and runs nothing that it reads."""
    folder = place_of(folder)
    if not (folder / "inspector.json").is_file():
        raise ArtifactRefused("no_inspector", path=folder)
    try:
        check_sums(folder)
        record = json.loads((folder / "inspector.json").read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ArtifactRefused("inspector_schema", path=folder, found=record["schema"], known=SCHEMA)
        inspector = Inspector(Specification.of(record))
        # Not mapped: whoever copies other weights over the file meanwhile would end the process.
        inspector.load_weights(safetensors.torch.load((folder / "model.safetensors").read_bytes()))
        _check_golden(inspector, folder)
        inspector.reference = reference.load(folder, inspector.encoder.width, len(record["classes"]))
        inspector.identity = identity(folder)
    except ArtifactRefused:
        raise
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, MemoryError,
        RecursionError, safetensors.SafetensorError, SteelshiftError, Unreadable,
    ) as error:  # fmt: skip
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ArtifactRefused("inspector_broken", path=folder, why=why) from error
    return inspector


def identity(folder: Path) -> str:
    """sha256 of the weights: which inspector made a row."""
    return sha256(folder / "model.safetensors")


def _check_golden(inspector: Inspector, folder: Path) -> None:
    for example in json.loads((folder / "golden" / "expected.json").read_text(encoding="utf-8")):
        pixels = decode((folder / "golden" / example["image"]).read_bytes()).pixels
        found = np.array(_probabilities(inspector, pixels))
        if not np.abs(found - np.array(example["probabilities"])).max() <= GOLDEN_TOLERANCE:
            raise ValueError(f"golden example {example['image']} no longer scores as it did")


@torch.inference_mode()
def _probabilities(inspector: Inspector, pixels: np.ndarray) -> list[float]:
    return inspector(torch.from_numpy(pixels[None].copy()))[0].tolist()
