"""The four non-local forms without the P x P matrix: time against the quadratic form, and memory over P.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/nonlocal_forms.py

Agreement of outputs and gradients with the quadratic form is checked first. "Quadratic" forms the P x P matrix: softmax
of theta phi^T, theta phi^T / P, and the *additive* concatenation ReLU(a_i + b_j) / P (mmcv builds all 2 C' x P x P
pairs).
"""

import argparse

import torch
from torch import Tensor

from gcnet.ops import PAIRWISE, nonlocal_attend
from gcnet.surgery.timing import time_in_rounds
from measure import peak_extra_megabytes, rounded, speed_up, write

CHANNELS = 512


def quadratic(theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, w: Tensor | None) -> Tensor:
    if w is not None:
        a, b = theta @ w[:CHANNELS], phi @ w[CHANNELS:]
        return (a[:, :, None] + b[:, None]).relu_() @ g / g.shape[1]
    f = theta @ phi.transpose(1, 2)
    return f @ g / g.shape[1] if pairwise == "dot_product" else f.softmax(2) @ g


def inputs(P: int, pairwise: str, grad: bool) -> list[Tensor]:
    tensors = [torch.randn(1, P, CHANNELS) * s for s in (0.2, 0.2, 1.0)]
    if pairwise == "concatenation":
        tensors.append(torch.randn(2 * CHANNELS) * 0.2)
    return [t.requires_grad_(grad) for t in tensors]


def check(pairwise: str) -> float:
    """Largest relative difference of the output and all gradients at P = 700."""
    tensors = inputs(700, pairwise, True)
    theta, phi, g, *w = tensors
    cotangent = torch.randn(1, 700, CHANNELS)
    fast = nonlocal_attend(theta, phi, g, pairwise=pairwise, concat_weight=w[0] if w else None)
    slow = quadratic(*(t.double() for t in (theta, phi, g)), pairwise, w[0].double() if w else None)
    worst = [(fast - slow).norm() / slow.norm()]
    for a, b in zip(
        torch.autograd.grad(fast, tensors, cotangent),
        torch.autograd.grad(slow, tensors, cotangent.double()),
        strict=True,
    ):
        worst.append((a - b).norm() / b.norm())
    return float(torch.stack([value.detach().double() for value in worst]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--budget", type=float, default=25.0, help="seconds per row")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    for pairwise in PAIRWISE:
        assert check(pairwise) <= 1e-5, pairwise

    rows = []
    lines = [
        "| form | P | pass | ours, ms | quadratic, ms | times faster (95 %) | ours, MB | quadratic, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pairwise in PAIRWISE:
        for P, grad in ((1024, False), (4200, False), (4200, True), (16384, False)):
            tensors = inputs(P, pairwise, grad)
            theta, phi, g, *w = tensors
            weight = w[0] if w else None

            def run(attend, grad=grad, tensors=tensors):
                with torch.set_grad_enabled(grad):
                    out = attend()
                if grad:
                    torch.autograd.grad(out.sum(), tensors)
                return out

            def ours(theta=theta, phi=phi, g=g, pairwise=pairwise, weight=weight):
                return nonlocal_attend(theta, phi, g, pairwise=pairwise, concat_weight=weight)

            def theirs(theta=theta, phi=phi, g=g, pairwise=pairwise, weight=weight):
                return quadratic(theta, phi, g, pairwise, weight)

            functions = {"ours": lambda run=run, f=ours: run(f), "quadratic": lambda run=run, f=theirs: run(f)}
            seconds = time_in_rounds(functions, arguments.rounds, arguments.budget)
            ratio = speed_up(seconds, "ours", "quadratic")
            memory = {name: round(peak_extra_megabytes(function), 1) for name, function in functions.items()}
            median = {name: round(sorted(values)[len(values) // 2] * 1e3, 2) for name, values in seconds.items()}
            what = "forward + backward" if grad else "forward"
            rows.append(
                {"form": pairwise, "P": P, "pass": what, "ms": median, "MB": memory, "times_faster": rounded(ratio)}
            )
            lines.append(
                f"| {pairwise} | {P} | {what} | {median['ours']} | {median['quadratic']} | {ratio.value:.1f} "
                f"({ratio.low:.1f} to {ratio.high:.1f}, n {ratio.count}) | {memory['ours']} | {memory['quadratic']} |"
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        "Peak extra memory of our forward pass alone, MB:",
        "",
        "| form | 256 | 1024 | 4096 | 16384 | 65536 |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for pairwise in PAIRWISE:
        curve = {}
        for P in (256, 1024, 4096, 16384, 65536):
            if P == 65536 and "gaussian" in pairwise:
                continue  # minutes of quadratic time on two cores; memory is what it was
            theta, phi, g, *w = inputs(P, pairwise, False)
            with torch.no_grad():
                curve[P] = round(
                    peak_extra_megabytes(
                        lambda t=theta, p=phi, g=g, w=w, f=pairwise: nonlocal_attend(
                            t, p, g, pairwise=f, concat_weight=w[0] if w else None
                        )
                    ),
                    1,
                )
        rows.append({"form": pairwise, "peak_extra_MB_over_P": curve})
        cells = " | ".join(str(curve.get(P, "not run")) for P in (256, 1024, 4096, 16384, 65536))
        lines.append(f"| {pairwise} | {cells} |")
    about = f"Non-local attention without the P x P matrix: batch 1, C' = {CHANNELS}, float32"
    write("nonlocal_forms", rows, about, "\n".join(lines))


if __name__ == "__main__":
    main()
