"""The whole chain, from images to the chip: named steps in order, each leaving its result in the run folder.

    python experiments/pipeline.py experiment=demo
    python experiments/pipeline.py experiment=demo start=simulate simulate.images=100      # again from a step, in the same folder
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from bayestt.algebra.fixed import quantize as to_integers
from bayestt.artifact import load, read_arrays, save, write_arrays
from bayestt.bayes.fit import Batches, fit
from bayestt.bayes.model import model
from bayestt.bayes.predict import predict, score
from bayestt.bayes.prune import prune, ranks
from bayestt.ir.fold import fold
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from bayestt.report.figures import accuracy_against_parameters, cycles_per_nest, ranks_over_epochs
from bayestt.report.table import Model, models
from hw.assemble import assemble
from hw.emulate import emulate
from hw.program import Program
from hw.simulate import simulate
from hw.verilog import verilog
