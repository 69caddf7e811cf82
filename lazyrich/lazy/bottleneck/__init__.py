r"""Infinite-width autoencoders with a finite bottleneck: prior, tangent kernel, and the closed dynamics of training.

**Setting.** An encoder x -> u in R^k and a decoder u -> f in R^d, f(x) = g(u(x)), all layers wide but the k latents, in NTK
parameterisation: u = W h(x) / sqrt(n), decoder input u / sqrt(k), so u = Theta(1) at initialisation. At infinite width
u_j ~ GP(0, K_enc) and, given u, f_i ~ GP(0, K_dec(u, u')): a deep Gaussian process (Agrawal, Papamarkou & Hinkle 2020,
arXiv:2001.00921), no Gaussian one (``BottleneckPrior``).

**The tangent kernel.** df/dtheta = dg/dtheta at fixed u for the decoder's parameters and J du/dtheta, J = dg/du in R^(d x k),
for the encoder's. Different latents share no readout weights and their kernels are equal, Theta_enc(x, x') delta_jl, so

    Theta_f(x, x')_il = delta_il Theta_dec(u, u') + Theta_enc(x, x') [J(u) J(u')^T]_il        (1)

at every width, up to fluctuations of Theta_enc and Theta_dec of order n^(-1/2). It is random and matrix-valued through u and J
(``bottleneck_ntk``), and it moves.

**The dynamics.** Loss L = 1/(2N) sum_b |f_b - y_b|^2 (mean over samples, sum over outputs), e_b = (f_b - y_b)/N, gradient flow
with learning rate 1. L depends on the encoder through u_b alone, with dL/du_b = J_t(u_b)^T e_b, and on the decoder through the
values g(u_b). Hence, exactly at every width, with the tangent kernels of that width at that time (matrices between outputs),

    du_a/dt    = - sum_b Theta_enc^t(x_a, x_b) J_t(u_b)^T e_b,                                (2)
    dg_t(u)/dt = - sum_b Theta_dec^t(u, u_b(t)) e_b      at fixed u, any u.                   (3)

At infinite width two things happen. First, J^T e = Theta(1), so the encoder is an ordinary wide network with k outputs and
Theta(1) errors: its neurons move by n^(-1/2), Theta_enc^t -> Theta_enc. Second, the decoder at fixed u is one with d outputs,
taught at the points u_b(t) that someone else moves: its weights feel the errors e_b alone, its neurons at fixed u move by
n^(-1/2), and Theta_dec^t(u, u') -> Theta_dec(u, u') together with its derivatives in u, uniformly on compact sets (a smooth
activation). (2) and (3) then close. Integrated,

    g_t(u) = g_0(u) - int_0^t sum_b Theta_dec(u, u_b(s)) e_b(s) ds,                             (4)
    J_t(u) = dg_0/du (u) - int_0^t sum_b e_b(s) (d/du) Theta_dec(u, u_b(s))^T ds,               (5)

where (5) is the derivative of (4), as d/du and d/dt commute at fixed u; f_a = g_t(u_a(t)), and d f_a/dt is (3) at u_a plus
J du_a/dt, which is (1). The derivative in (5) acts on the first argument only: the second is where the decoder was taught, not
where it is asked. With P_b(t) = int_0^t J_s(u_b)^T e_b ds, u(x) = u_0(x) - sum_b Theta_enc(x, x_b) P_b at any x, so the state is
P (N x k) and the function g (a kernel expansion with all past latents as centres). Full-batch gradient descent has the same
limit with sums eta sum_{s<t} for the integrals, at any stable eta: encoder and decoder are linear in their weights, each at
fixed input.

**What is lazy and what is not.** The neurons are: encoder activations move by n^(-1/2). The latents move by Theta(1), hence the
decoder's activations at the moving u do too, and Theta_f changes by Theta(1): features are learnt at the bottleneck in the
"kernel" parameterisation. The start (u_0, g_0) is random and training is nonlinear in it, so ends differ from draw to draw; close
to a fork, small differences at the start are magnified, those of finite width too.

**Standing.** The prior is published and (1)-(3) are the chain rule. Littwin et al. (2021, arXiv:2107.00364) follow gradient descent
on wide networks composed around a finite bottleneck in function space; (4) and (5) were derived without theirs. Checks
(tests, ``studies/bottleneck.py``): exact to rounding for networks whose kernels are exact at finite width; for networks with all
layers trained, the latents' relative error falls as n^(-1/2). No proof of uniform convergence is given; times of order one in n
are meant, not log n. For rectifiers Theta_dec has a kink at u = u', where autograd takes the angle's derivative as zero.
"""

from lazyrich.lazy.bottleneck.decoder import TrainedDecoder
from lazyrich.lazy.bottleneck.derivative import derivative_covariance
from lazyrich.lazy.bottleneck.drawn import DrawnFunction
from lazyrich.lazy.bottleneck.dynamics import BottleneckDynamics
from lazyrich.lazy.bottleneck.halves import halves
from lazyrich.lazy.bottleneck.likelihood import LogLikelihood
from lazyrich.lazy.bottleneck.moment import Measured, dependence, homogeneous_dependence, homogeneous_kurtosis, kurtosis
from lazyrich.lazy.bottleneck.path import BottleneckPath
from lazyrich.lazy.bottleneck.prior import BottleneckPrior, Draws
from lazyrich.lazy.bottleneck.side import Side
from lazyrich.lazy.bottleneck.tangent import BottleneckTangents, bottleneck_ntk

__all__ = [
    "BottleneckDynamics",
    "BottleneckPath",
    "BottleneckPrior",
    "BottleneckTangents",
    "Draws",
    "DrawnFunction",
    "LogLikelihood",
    "Measured",
    "Side",
    "TrainedDecoder",
    "bottleneck_ntk",
    "dependence",
    "halves",
    "derivative_covariance",
    "homogeneous_dependence",
    "homogeneous_kurtosis",
    "kurtosis",
]
