"""What the graders are trained on and judged by: log loss under the competition's weights."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_loss(logits: Tensor, log_prior: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Mean weighted cross-entropy of evidence logits.

    The network gives the EVIDENCE z of a crop; with how often each severity occurs at that level,
    p ∝ exp(z)·prior, and under sample weights w the loss is least at q ∝ w·p. So prior and weights are put
    in here and the network need not learn them; z = 0 is the level prior. (Logit adjustment: Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021.)

    Args:
        logits: (B, 3) z.
        log_prior: (B, 3) log share of each severity in the data that the crop is from.
        truth: (B, 3) probability of each severity, one-hot for plain labels.
        weights: (3,) of the severities.

    Returns:
        Scalar: Σ w·truth·(−ln q) / Σ w·truth.
    """
    log_q = (logits + log_prior + weights.log()).log_softmax(dim=1)
    weighted_truth = truth * weights
    return -(weighted_truth * log_q).sum() / weighted_truth.sum()


def any_severe_loss(
    logits: Tensor, log_prior: Tensor, truth: Tensor, weights: Tensor, sequence: Tensor
) -> Tensor:
    """The metric's any-severe-spinal term, for truth that may be a probability.

    Per study m = max over its levels of q(severe); a study has the largest weight of its levels. With levels
    independent given their truth, its expected loss is
    w₂·P(any severe)·(−ln m) + (w₁·P(worst is moderate) + w₀·P(all mild))·(−ln(1 − m)).

    Args:
        logits, log_prior, truth, weights: as in ``weighted_loss``, canal crops only.
        sequence: (B,) study of each crop, as a number.

    Returns:
        Scalar: the weighted mean over the studies in the batch.
    """
    log_q = (logits + log_prior + weights.log()).log_softmax(dim=1)
    studies, number = torch.unique(sequence, return_inverse=True)

    def of_study(values: Tensor, start: float, how: str) -> Tensor:
        out = values.new_full((len(studies),), start)
        return out.scatter_reduce(0, number, values, reduce=how, include_self=True)

    eps = 1e-6
    largest = of_study(log_q[:, 2].exp(), 0.0, "amax").clamp(eps, 1 - eps)
    no_severe = of_study((1 - truth[:, 2]).clamp(0, 1), 1.0, "prod")
    all_mild = of_study(truth[:, 0].clamp(0, 1), 1.0, "prod")
    severe = weights[2] * (1 - no_severe)
    other = weights[1] * (no_severe - all_mild) + weights[0] * all_mild
    loss = -(severe * largest.log() + other * (1 - largest).log())
    return loss.sum() / (severe + other).sum()
