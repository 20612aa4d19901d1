"""Problems whose answer is known: labels from a teacher whose weight has the ranks of a given factorization."""

import numpy as np

from bayestt.algebra.factorization import Factorization, dense
from bayestt.data.dataset import Dataset, Split

ROUNDS = 20
"""Of making a core's slices orthonormal along one rank after the other."""


def planted(form: Factorization, images: int, gain: float = 10.0, seed: int = 0) -> Dataset:
    """Gaussian inputs (n, cols), labels by the softmax of the teacher's scores; `form.size` tells the ranks that are to be found.

    `images` are for training, a quarter as many each for validation and test. The teacher is drawn such that its ranks can be told from
    labels alone: no rank index is near the others in what it adds, and no class is better by itself, since scores to which the same number
    is added say the same. `gain` is the scores' standard deviation: the larger, the fewer labels are noise.
    """
    random = np.random.default_rng(seed)
    weight = dense(form, _teacher(form, random))
    weight *= gain / np.sqrt(np.mean(np.square(weight)) * form.shape[1])

    def draw(count: int) -> Split:
        inputs = random.standard_normal((count, form.shape[1])).astype(np.float32)
        scores = inputs @ weight.T + random.gumbel(size=(count, form.shape[0]))
        return Split(inputs, scores.argmax(axis=1).astype(np.int64))

    return Dataset(draw(images), draw(max(1, images // 4)), draw(max(1, images // 4)), tuple(map(str, range(form.shape[0]))))


def _teacher(form: Factorization, random: np.random.Generator) -> list[np.ndarray]:
    """Cores whose slices along every rank are orthonormal, as nearly as its ranks allow, and sum to nothing over the first row axis."""
    cores = []
    for shape, axes in zip(form.shapes, form.cores, strict=True):
        core = random.standard_normal(shape)
        if form.rows[0] in axes:
            core -= core.mean(axis=axes.index(form.rows[0]), keepdims=True)
        for at in [axes.index(axis) for axis in form.ranks if axis in axes] * ROUNDS:
            slices = np.moveaxis(core, at, 0)
            left, _, right = np.linalg.svd(slices.reshape(len(slices), -1), full_matrices=False)
            core = np.moveaxis((left @ right).reshape(slices.shape), 0, at)
        cores.append(core)
    return cores
