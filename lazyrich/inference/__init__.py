"""What follows from Gram matrices alone: posteriors, training dynamics, spectra and learning curves, for any kernel."""

from lazyrich.inference.classify import Probabilities, classify
from lazyrich.inference.conjugate import Solved, conjugate_gradients
from lazyrich.inference.flow import Flow
from lazyrich.inference.function_flow import function_flow
from lazyrich.inference.gradient import gradient_flow
from lazyrich.inference.hyperparameters import Hyperparameters, fit_hyperparameters
from lazyrich.inference.lanczos import Density, density, top_eigenpairs
from lazyrich.inference.learning_curve import LearningCurve, learning_curve
from lazyrich.inference.leave_one_out import LeaveOneOut, leave_one_out
from lazyrich.inference.likelihood import log_marginal
from lazyrich.inference.operator import Dense, Operator, Streamed
from lazyrich.inference.posterior import Posterior, posterior
from lazyrich.inference.rate import max_learning_rate
from lazyrich.inference.spectrum import Spectrum, spectrum
from lazyrich.inference.stopping import EarlyStopping, early_stopping, equivalent_ridge
from lazyrich.inference.targets import one_hot_targets

__all__ = [
    "Dense",
    "Density",
    "EarlyStopping",
    "Flow",
    "Hyperparameters",
    "LearningCurve",
    "LeaveOneOut",
    "Operator",
    "Posterior",
    "Probabilities",
    "Solved",
    "Spectrum",
    "Streamed",
    "classify",
    "conjugate_gradients",
    "density",
    "early_stopping",
    "equivalent_ridge",
    "fit_hyperparameters",
    "function_flow",
    "gradient_flow",
    "learning_curve",
    "leave_one_out",
    "log_marginal",
    "max_learning_rate",
    "one_hot_targets",
    "posterior",
    "spectrum",
    "top_eigenpairs",
]
