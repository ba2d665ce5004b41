"""The keypoint network: ultralytics' PoseModel with both kinds of evidence, WHERE and WHICH, in one head.

Every object of a level also counts as ``disc``: the class scores then say which level it may be,
the ``disc`` score whether it is a disc at all, and a view without a cue to the numbering can be
labelled ``disc`` alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from ultralytics.nn.modules.block import C2f
from ultralytics.nn.tasks import PoseModel
from ultralytics.utils.loss import v8PoseLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from data_prep.base.graph import convert_torch
from data_prep.base.networks import with_weights
from detector.spec import STRIDE, DetectorSpec


class LevelAssigner(TaskAlignedAssigner):
    """Task-aligned assignment that also fills the ``disc`` column, and leaves open what nobody labelled.

    All objects belong to the finest grid, the only one that is looked at afterwards. Without being told,
    trainings chose it, too: boxes of 24 to 40 mm have some twenty of its cells.

    An object of a negative class may be one or not: an anchor that is assigned to it, or lies in its box, is
        no positive, and its target is what it says already, so that it adds nothing to the gradient.
    """

    disc_class: int | None

    def select_candidates_in_gts(self, xy_centers: torch.Tensor, *boxes: Any, **extra: Any) -> Any:
        """As the parent's, (batch, objects, anchors), without anchors of coarser grids.

        Args:
            xy_centers: (anchors, 2) px: of the finest grid 4, 12, 20, …, of the others multiples of 8.
        """
        finest = (xy_centers % STRIDE == STRIDE / 2).all(dim=-1)
        return super().select_candidates_in_gts(xy_centers, *boxes, **extra) & finest

    def forward(
        self,
        pd_scores: torch.Tensor,
        pd_bboxes: torch.Tensor,
        anc_points: torch.Tensor,
        gt_labels: torch.Tensor,
        gt_bboxes: torch.Tensor,
        mask_gt: torch.Tensor,
        **extra: Any,
    ) -> Any:
        """As the parent's.

        Args:
            pd_scores: (batch, anchors, classes) probabilities.
            pd_bboxes: (batch, anchors, 4).
            anc_points: (anchors, 2) px.
            gt_labels, gt_bboxes, mask_gt: (batch, objects, 1 and 4 and 1) classes, boxes xyxy in px, which
                exist.
        """
        open_ = (gt_labels < 0) & mask_gt.bool()
        found, where, targets, foreground, index = super().forward(
            pd_scores, pd_bboxes, anc_points, gt_labels.clamp(min=0), gt_bboxes, mask_gt, **extra
        )
        targets = targets.clone()
        if self.disc_class is not None:
            targets[..., self.disc_class] = targets.amax(dim=-1)
        if bool(open_.any()):
            foreground = foreground.bool()
            assigned = torch.gather(open_[..., 0], 1, index) & foreground
            inside = (anc_points[None, None] >= gt_bboxes[:, :, None, :2]) & (
                anc_points[None, None] <= gt_bboxes[:, :, None, 2:]
            )
            near = (inside.all(dim=-1) & open_).any(dim=1)
            left_open = assigned | (near & ~foreground)
            targets = torch.where(left_open[..., None], pd_scores.to(targets.dtype), targets)
            foreground = foreground & ~left_open
        return found, where, targets, foreground, index


class LevelPoseLoss(v8PoseLoss):
    """Pose loss with the assigner above."""

    def __init__(self, model: torch.nn.Module, disc_class: int | None) -> None:
        super().__init__(model)
        self.assigner.__class__ = LevelAssigner
        self.assigner.disc_class = disc_class  # type: ignore[assignment]


class LevelPoseModel(PoseModel):
    """PoseModel that trains with ``LevelPoseLoss``."""

    disc_class: Any = None

    def init_criterion(self) -> v8PoseLoss:
        """The training loss."""
        return LevelPoseLoss(self, self.disc_class)


class EvidenceNetwork(torch.nn.Module):
    """What of a PoseModel decides about candidates: class probabilities and keypoints of its finest grid.

    Boxes are left out, and the two coarser grids, which are for larger objects (``LevelAssigner`` gives them
    none). Keypoints stay as the head gives them; ``detector.look.inference.decode_keypoints`` makes them
    pixels.
    """

    def __init__(self, model: LevelPoseModel) -> None:
        super().__init__()
        whole: Any = model.model
        kept: Any = model.save
        head = whole[-1]
        self.layers: Any = torch.nn.ModuleList(whole[: head.f[0] + 1])
        self.classes, self.keypoints = head.cv3[0], head.cv4[0]
        self.kept = frozenset(kept)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] → (B, classes + 3 × keypoints, anchors)."""
        outputs: list[Any] = []
        x: Any = images
        for layer in self.layers:
            if isinstance(layer.f, list):
                x = [x if source == -1 else outputs[source] for source in layer.f]
            elif layer.f != -1:
                x = outputs[layer.f]
            x = layer(x)
            outputs.append(x if layer.i in self.kept else None)
        scores, keypoints = self.classes(x), self.keypoints(x)
        return torch.cat([scores.flatten(2).sigmoid(), keypoints.flatten(2)], dim=1)


class HalvedBlock(torch.nn.Module):
    """An ultralytics C2f whose first layer is two layers with half of the channels each.

    It gives the same. To cut an image in two, as a C2f does, ONNX Runtime brings it into another order.
    """

    def __init__(self, block: C2f) -> None:
        super().__init__()
        self.block: Any = block
        self.i, self.f = self.block.i, self.block.f
        self.halves = torch.nn.ModuleList(self._half(number) for number in range(2))

    def _half(self, number: int) -> torch.nn.Module:
        layer = copy.deepcopy(self.block.cv1)
        for part in (layer.conv, layer.bn):
            for name, value in part.state_dict().items():
                if value.dim():  # all but a counter
                    getattr(part, name).data = value.chunk(2)[number]
        found: torch.nn.Module = layer
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the block."""
        parts = [half(x) for half in self.halves]
        for inner in self.block.m:
            parts.append(inner(parts[-1]))
        return self.block.cv2(torch.cat(parts, dim=1))


def converted_network(spec: DetectorSpec, content: bytes) -> bytes:
    """The evidence network of a weights file's bytes as ONNX, for any number of images of any size."""
    module = EvidenceNetwork(network_from_bytes(spec, content)).eval()
    for place, layer in enumerate(module.layers):
        if isinstance(layer, C2f):
            module.layers[place] = HalvedBlock(layer)
    width, height = spec.train_canvas_px
    return convert_torch(module, (torch.zeros(1, 1, height, width),), [(0, 2, 3)], (0, 2))


def build_network(spec: DetectorSpec) -> LevelPoseModel:
    """An untrained network for a spec: one grey channel in, classes and keypoints of the spec out."""
    model = LevelPoseModel(
        spec.architecture,
        ch=1,
        nc=len(spec.class_names),
        data_kpt_shape=(len(spec.keypoints), 3),
        verbose=False,
    )
    model.disc_class = spec.disc_class
    model.names = dict(enumerate(spec.class_names))
    return model


def network_from_bytes(spec: DetectorSpec, content: bytes) -> LevelPoseModel:
    """The network of a safetensors file's bytes, ready for inference. Raises WeightsRejected."""
    model: LevelPoseModel = with_weights(build_network(spec), content, f"{spec.kind.value}.safetensors")
    return model
