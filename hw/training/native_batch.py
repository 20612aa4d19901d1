"""Of the compiled step what is done once for all images of a batch, in C++: factors before them, behind them all that moves."""

from collections.abc import Iterator
from math import prod

from bayestt.ir.descend import IMPATIENT, IMPATIENT_STEPS, PATIENT
from bayestt.ir.training import BIAS_BITS, ERROR_FRAC, IMAGE_FRAC, Contraction, Parameter, Training
from hw.training.native_image import at, loops, names, products, strides


def rank_axes(training: Training) -> tuple[str, ...]:
    """The axes whose indices have scales."""
    return tuple(dict.fromkeys(parameter.rank for parameter in training.parameters.values() if parameter.rank))


def gradient_axes(training: Training, name: str) -> tuple[str, ...]:
    """The axes, in their order, under which the sums of a parameter's gradients are kept."""
    return next(each.y for each in products(training) if each.contraction.name == training.gradients[name])


def kept(training: Training) -> Iterator[str]:
    """Lines that make room for factors, for what sums begin with, and for what is known of contractions."""
    called = names(training)
    for name, parameter in training.parameters.items():
        yield f"alignas(64) static thread_local element {called[name]}[{prod(training.shape(parameter.axes))}];"
    for each in _biased(training):
        yield f"alignas(64) static thread_local int32_t begin_{called[each.name]}[{prod(training.shape(each.axes))}];"
    yield f"static thread_local int32_t shifts[{len(training.contractions)}], peaks[{len(training.contractions)}];"


def before_images(training: Training) -> Iterator[str]:
    """Lines that make factors of latents, shifts of all contractions, and biases as they are added to sums."""
    called = names(training)
    for number, (name, parameter) in enumerate(training.parameters.items()):
        extent, cut = prod(training.shape(parameter.axes)), parameter.latent.bits - parameter.factor.bits
        made = f"rescaled(latent{number}[k], {cut}, {parameter.factor.bits})"
        yield f"for (int k = 0; k < {extent}; k++) {called[name]}[k] = {made};"
    fracs = {name: str(parameter.factor.frac) for name, parameter in training.parameters.items()}
    fracs |= {"image": str(IMAGE_FRAC), "error": str(ERROR_FRAC)}
    for number, each in enumerate(training.contractions):
        fracs[each.name] = f"frac{number}"
        summed = " + ".join(fracs[name] for name, _ in each.args)
        shift = f"adapted[{number}]" if each.frac is None else f"{summed} - {each.frac}"
        yield f"shifts[{number}] = within({shift}); const int frac{number} = {summed} - ({shift});"
        yield f"peaks[{number}] = 0;"
        if each.bias:
            begun = f"begin_{called[each.name]}[k] = rescaled_any({called[each.bias]}[k], begin_shift, {BIAS_BITS});"
            yield f"{{ const int begin_shift = within({fracs[each.bias]} - ({summed}));"
            yield f"for (int k = 0; k < {prod(training.shape(each.axes))}; k++) {begun} }}"


def behind_images(training: Training) -> Iterator[str]:
    """Lines that move latents by gradients and by the prior, then the scales of ranks, then shifts: `bayestt.ir.descend.moved`."""
    axes, parameters = rank_axes(training), [*training.parameters.items()]
    for number, axis in enumerate(axes):
        yield f"int64_t energy{number}[{training.size[axis]}] = {{}}; int32_t entries{number}[{training.size[axis]}] = {{}};"
    for number, (name, parameter) in enumerate(parameters):
        yield from _moved(training, number, name, parameter)
    for number, axis in enumerate(axes):
        yield f"move_scales({training.size[axis]}, square{number}, alive{number}, energy{number}, entries{number});"
    for number, (name, parameter) in enumerate(parameters):
        if there := _there(training, parameter):
            own, sums = _places(training, name, parameter)
            yield from loops(training, parameter.axes)
            yield f"if (!({there})) latent{number}[{own}] = {names(training)[training.gradients[name]]}[{sums}] = 0;"
    yield f"const int patience = steps < {IMPATIENT_STEPS} ? {IMPATIENT} : {PATIENT};"
    for number, each in enumerate(training.contractions):
        if each.frac is None:
            yield f"control(peaks[{number}], {each.bits}, patience, adapted[{number}], counts[{number}]);"
    yield "steps++;"


def _moved(training: Training, number: int, name: str, parameter: Parameter) -> Iterator[str]:
    """Lines that move a parameter's latents, row-major, and add their squares to their rank's energy."""
    axes, gradient = rank_axes(training), names(training)[training.gradients[name]]
    own, sums = _places(training, name, parameter)
    peak = f"peaks[{[each.name for each in training.contractions].index(training.gradients[name])}]"
    yield f"{{ // {name}"
    yield f"const int32_t up = 1 << (DRAW_BITS - rate - {parameter.brake});"
    pull, scaled, index = "0", "", ""
    if parameter.rank:
        scaled, index = str(axes.index(parameter.rank)), f"a{parameter.axes.index(parameter.rank)}"
        pull, extent = f"strengths[{index}] * latent", training.size[parameter.rank]
        yield f"int32_t strengths[{extent}] = {{}};"
        yield f"if (pulls) for (int k = 0; k < {extent}; k++) strengths[k] = strength(square{scaled}[k], pull - {parameter.ease});"
    yield from loops(training, parameter.axes)
    yield "{"
    yield f"element &latent = latent{number}[{own}], &sum = {gradient}[{sums}];"
    yield f"{peak} = std::max({peak}, std::abs(int32_t(sum)));"
    yield f"const bool there = {_there(training, parameter) or 'true'};"
    yield f"latent = there ? moved_latent(latent, sum * up + {pull}, draws) : 0;"
    yield "sum -= rescaled(sum, momentum, 16);"
    if parameter.rank:
        yield f"energy{scaled}[{index}] += latent * latent; entries{scaled}[{index}] += there;"
    yield "} }"


def _there(training: Training, parameter: Parameter) -> str:
    """Whether all rank indices of an entry are there; empty where it has none."""
    axes = rank_axes(training)
    return " && ".join(f"alive{axes.index(axis)}[a{k}]" for k, axis in enumerate(parameter.axes) if axis in axes)


def _places(training: Training, name: str, parameter: Parameter) -> tuple[str, str]:
    """Where an entry's latent is, and the sum of its gradients."""
    return at(parameter.axes, strides(training, parameter.axes)), at(parameter.axes, strides(training, gradient_axes(training, name)))


def _biased(training: Training) -> list[Contraction]:
    return [each for each in training.contractions if each.bias]
