"""The report of layers: counts by hand, every op found its layer, and what a machine did in its row."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from bayestt.algebra.formats import Form
from bayestt.ir.fold import fold
from bayestt.ir.quantize import quantize
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from bayestt.report.layers import Cost, layer_of, layer_table, layers


def small_net() -> nn.Module:
    """A convolution, a pooling, a tensorized linear layer and a dense one."""
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3, padding=1, stride=2),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16, 6),
            relu1=nn.ReLU(),
            fc2=nn.Linear(6, 2, bias=False),
        )
    )
    return tensorize(net, {"fc1": Form("tt_matrix", 2, [2, 3], [4, 4])})


def test_counts_are_those_by_hand() -> None:
    conv, fc1, fc2 = layers(trace(small_net(), torch.zeros(1, 3, 8, 8)))
    # Of 4 places in each direction the first lacks one of 3 taps.
    assert (conv.name, conv.ranks, conv.parameters, conv.dense_parameters) == ("conv", {}, 112, 112)
    assert conv.dense_macs == 4 * 3 * (4 * 3 - 1) ** 2
    assert (fc1.name, fc1.ranks, fc1.parameters) == ("fc1", {"r1": 2}, 2 * 4 * 2 + 2 * 3 * 4 + 6)
    assert (fc1.dense_parameters, fc1.dense_macs) == (16 * 6 + 6, 16 * 6)
    assert (fc2.name, fc2.parameters, fc2.dense_macs) == ("fc2", 12, 12)


def test_every_op_of_the_integer_graph_finds_its_layer() -> None:
    net = tensorize(resnet(8), {"stage3.down.conv?": Form("tucker", 4)}).eval()
    traced = trace(net, torch.zeros(1, 3, 16, 16))
    known = [layer.name for layer in layers(traced)]
    integer = quantize(fold(traced), torch.rand(4, 3, 16, 16).numpy())
    found = {op.name: layer_of(integer, op.name, known) for op in integer.ops[1:] if op.kind != "CONST"}
    assert set(found.values()) == set(known) and len(known) == 8
    assert found["stage3.down.relu1"] == "stage3.down.conv1" and found["pool"] == found["stage3.down.relu2"] == "stage3.down.conv2"
    assert layer_of(integer, "fc.2.step1", [*known, "fc.2"]) == "fc.2"
    with pytest.raises(ValueError, match="comes after no layer of"):
        layer_of(integer, "x", known)


def test_a_table_has_a_row_a_layer() -> None:
    found = layers(trace(small_net(), torch.zeros(1, 3, 8, 8)))
    costs = {layer.name: Cost(layer.dense_macs // 2, 1000 * (k + 1), 0.5, 64) for k, layer in enumerate(found)}
    _, _, *rows = layer_table(found, costs).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["conv", "fc1", "fc2"]
    assert "r1 2" in rows[1] and " 2.2x" in rows[1] and "3,000" in rows[2] and "50 %" in rows[2] and " 2.0x" in rows[2]
