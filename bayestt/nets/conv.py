"""A convolution whose kernel is a factorization."""

from math import prod, sqrt

from torch import Tensor, nn

from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import Form
from bayestt.nets import contract
from bayestt.nets.contract_conv import TAPS, Window, plan_conv
from bayestt.nets.cores import add_parameters, come_near, cores_of, multiplied, ranks_of, take_ranks

Pair = int | tuple[int, int]


class TensorizedConv2d(nn.Module):
    """A convolution whose kernel is the product of the parameters `core0`, `core1`, ...

    (n, in channels, height, width) -> (n, out channels, ...). Rows of the form are out channels, its columns in channels, then the taps kh
    and kw; one without taps is a 1x1 kernel. All else is as in nn.Conv2d, the first kernel's deviation too unless `std` is given;
    `recompute` as in TensorizedLinear.
    """

    def __init__(
        self,
        form: Factorization,
        stride: Pair = 1,
        padding: str | Pair = 0,
        dilation: Pair = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        recompute: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        out_channels, in_channels, kernel_size = _kernel_shape(form)
        # One without memory, for its checks of what it is given and its tuples.
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, 1, False, padding_mode, device="meta")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.padding_mode = conv.stride, conv.padding, conv.dilation, padding_mode
        self.window, self.recompute = Window(conv.stride, conv.dilation, _border(conv), padding_mode), recompute
        self.least = _least(self.window, kernel_size)
        add_parameters(self, form, 1 / sqrt(3 * form.shape[1]) if std is None else std, bias)

    @property
    def cores(self) -> tuple[Tensor, ...]:
        """The factors of the kernel, in the order of `form.cores`."""
        return cores_of(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self(x[None])[0]
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.shape[2] < self.least[0] or x.shape[3] < self.least[1]:
            wanted = "(n, {}, height, width) of at least {} x {} pixels".format(self.in_channels, *self.least)
            raise ValueError(f"images of shape {tuple(x.shape)}: this convolution takes {wanted}, give such or another kernel")
        cores = self.cores
        gradients = contract.needed(x, cores)
        convolution = plan_conv(self.form, self.window, x, gradients)
        if self.recompute and gradients != "none":
            convolution = contract.recomputed(convolution)
        y = convolution(x, cores)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def dense(self) -> Tensor:
        """The kernel (out channels, in channels, kh, kw) that the cores stand for."""
        return multiplied(self.form, self.cores).reshape(self.out_channels, self.in_channels, *self.kernel_size)

    def extra_repr(self) -> str:
        given = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{given}, dilation={self.dilation}, padding_mode={self.padding_mode}, {ranks_of(self.form)}, bias={self.bias is not None}"

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, form: Factorization) -> "TensorizedConv2d":
        """The layer of a given form that comes nearest to a convolution; they share no memory."""
        layer = fresh_conv("the given one", conv, form)
        come_near(layer, conv.weight.flatten(1), conv.bias)
        return layer

    def _load_from_state_dict(self, state_dict: dict, prefix: str, metadata: dict, strict: bool, *found: list) -> None:
        take_ranks(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *found)


def fresh_conv(name: str, conv: nn.Conv2d, form: Form | Factorization, recompute: bool = False) -> TensorizedConv2d:
    """A freshly initialised layer in the place of a convolution, whose kernel varies as that one's does; an error calls it `name`."""
    if conv.groups != 1:
        raise ValueError(f"layer {name!r} has {conv.groups} groups: only convolutions with one group are tensorized, leave this one out")
    taps = conv.kernel_size if max(conv.kernel_size) > 1 else ()
    if isinstance(form, Form):
        form = form.factorization(conv.out_channels, conv.in_channels, taps)
    wanted, found = (conv.out_channels, conv.in_channels, conv.kernel_size), _kernel_shape(form)
    if found != wanted:
        told = ["{} out channels, {} in channels and a kernel of {}".format(*shape) for shape in (wanted, found)]
        raise ValueError(f"layer {name!r} has {told[0]} and the form {told[1]}: give modes that multiply to the layer's, and its taps")
    std = conv.weight.detach().square().mean().sqrt().item() or None
    options = conv.stride, conv.padding, conv.dilation, conv.bias is not None, conv.padding_mode
    return TensorizedConv2d(form, *options, recompute, std).to(conv.weight)


def _kernel_shape(form: Factorization) -> tuple[int, int, tuple[int, int]]:
    """Out channels, in channels and taps (height, width) of a kernel of this form."""
    taps = tuple(axis for axis in form.cols if axis in TAPS)
    if taps not in ((), TAPS) or form.cols[len(form.cols) - len(taps) :] != taps:
        raise ValueError(f"columns {' '.join(form.cols)} are no kernel's: give in channels, then kh and kw")
    rows, cols = form.shape
    kernel_size = form.size.get("kh", 1), form.size.get("kw", 1)
    return rows, cols // prod(kernel_size), kernel_size


def _least(window: Window, kernel_size: tuple[int, int]) -> tuple[int, int]:
    """The height and the width of the smallest image on which a kernel can be laid."""
    left, right, top, bottom = window.border
    reach = [spread * (taps - 1) + 1 for spread, taps in zip(window.dilation, kernel_size, strict=True)]
    return max(reach[0] - top - bottom, 1), max(reach[1] - left - right, 1)


def _border(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Pixels that a convolution adds left, right, top and bottom of an image; the greater half of an odd number right and bottom."""
    if conv.padding == "valid":
        return 0, 0, 0, 0
    if conv.padding == "same":
        down, across = (spread * (taps - 1) for spread, taps in zip(conv.dilation, conv.kernel_size, strict=True))
        return across // 2, across - across // 2, down // 2, down - down // 2
    down, across = conv.padding
    return across, across, down, down
