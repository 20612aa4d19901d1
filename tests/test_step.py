"""A step in bfloat16 is nearly the one in float32, and leaves weights in float32."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.statistics import learning
from bayestt.bayes.step import adam, step
from bayestt.nets.fc import fc
from bayestt.nets.resnet import resnet

MAKE = {"point": point, "mean_field": lambda believes: mean_field(believes, std=1e-3)}


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("net", ["fc", "resnet"])
def test_bfloat16_agrees_with_float32(net: str, make: str) -> None:
    """The objective to 0.5 %, the direction of its gradient to a cosine of 0.99."""
    torch.manual_seed(0)
    believes = model(fc([768, 32, 10]) if net == "fc" else resnet(8), log_uniform(), categorical, 1000)
    x, labels = torch.randn(64, 3, 16, 16).contiguous(memory_format=torch.channels_last), torch.randint(10, (64,))
    objectives, slopes = [], []
    for precision in ("fp32", "bf16"):
        guide = MAKE[make](believes)
        torch.manual_seed(1)
        with learning(believes.net):
            objectives.append(step(believes, guide, adam(believes, guide, 1e-3), x, labels, 0.0, 1.0, None, precision))
        slopes.append(next(guide.parameters()).grad)
    assert objectives[0] == pytest.approx(objectives[1], rel=5e-3) and objectives[0] != objectives[1]
    assert torch.cosine_similarity(*slopes, 0) > 0.99 and slopes[1].dtype == torch.float32


def test_the_objective_of_bfloat16_scores_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    believes = model(fc([48, 10]), log_uniform(), categorical, 1000)
    x, labels, guide = torch.randn(64, 48), torch.randint(10, (64,)), point(believes)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = believes.net(x)
    assert scores.dtype == torch.bfloat16
    objective = step(believes, guide, adam(believes, guide, 1e-3), x, labels, 0.0, 1.0, None, "bf16")
    assert objective == pytest.approx(cross_entropy(scores.float(), labels).item(), rel=1e-6)
