"""Training step of a dynamic convolution against a static one of the same shape, on a CPU.

    python benchmarks/dynamic_convolution.py [--batch 16] [--threads 1]

Prints milliseconds of forward and backward for each layer of `dycnn_bilstm`, the ratio, and that of the sum. The ratio
of the sum should stay below 1.5: the kernels are mixed once per utterance, not convolved K times.
"""

import argparse
import time

import torch

from ser.models.convolutions import Conv
from ser.models.dycnn import DynamicConv

LAYERS = [(1, 64, 40, 300), (64, 64, 20, 150), (64, 128, 10, 75), (128, 128, 5, 37)]  # channels in, out, bins, frames


def step_ms(convs: list[Conv], images: torch.Tensor, repeats: int = 12) -> list[float]:
    """Time forward and backward of each layer, in milliseconds.

    The layers take turns, and the fastest step of each counts: the others waited for something else on the machine.
    """
    times: list[list[float]] = [[] for _ in convs]
    for _ in range(repeats):
        for conv, taken in zip(convs, times, strict=True):
            start = time.perf_counter()
            conv(images).square().mean().backward()
            taken.append(1000 * (time.perf_counter() - start))
    return [min(taken) for taken in times]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="utterances per step")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(f"{'layer':<24}{'static ms':>10}{'dynamic ms':>12}{'ratio':>8}")
    sums = [0.0, 0.0]
    for inside, outside, bins, frames in LAYERS:
        images = torch.randn(args.batch, inside, bins, frames, requires_grad=inside > 1)
        times = step_ms([Conv(inside, outside, (3, 3)), DynamicConv(inside, outside, (3, 3))], images)
        sums = [total + ms for total, ms in zip(sums, times, strict=True)]
        name = f"{inside} -> {outside}, {bins} x {frames}"
        print(f"{name:<24}{times[0]:>10.1f}{times[1]:>12.1f}{times[1] / times[0]:>8.2f}")
    print(f"{'sum':<24}{sums[0]:>10.1f}{sums[1]:>12.1f}{sums[1] / sums[0]:>8.2f}")


if __name__ == "__main__":
    main()
