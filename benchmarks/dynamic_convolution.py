"""Training step of a dynamic convolution against a static one of the same shape, on a CPU.

    python benchmarks/dynamic_convolution.py [--batch 16] [--threads 1] [--seconds 15]

Prints milliseconds of forward and backward for each layer of `dycnn_bilstm`, the ratio, and that of the sum. It should
stay below 1.5: the kernels are mixed once per utterance, not convolved K times.

Time is the processor's, of all threads: waiting for something else on the machine is none. Beside it stands the ratio
by the clock on the wall, which is the same on a quiet machine.
"""

import argparse
import time

import torch

from ser.models.convolutions import Conv
from ser.models.dycnn import DynamicConv

LAYERS = [(1, 64, 40, 300), (64, 64, 20, 150), (64, 128, 10, 75), (128, 128, 5, 37)]  # channels in, out, bins, frames
CLOCKS = (time.process_time, time.perf_counter)


def step_ms(convs: list[Conv], images: torch.Tensor, seconds: float) -> torch.Tensor:
    """Time forward and backward of each layer.

    The layers take turns while the seconds last, and the fastest step of each counts: the others were disturbed.

    Returns:
        (layers, 2) milliseconds of the processor and by the clock.
    """
    fastest = torch.full((len(convs), len(CLOCKS)), torch.inf)
    end = time.monotonic() + seconds
    while time.monotonic() < end or fastest.isinf().any():
        for conv, best in zip(convs, fastest, strict=True):
            start = [clock() for clock in CLOCKS]
            conv(images).square().mean().backward()
            taken = [1000 * (clock() - begin) for clock, begin in zip(CLOCKS, start, strict=True)]
            torch.minimum(best, torch.tensor(taken), out=best)
    return fastest


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="utterances per step")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long every shape is tried")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(f"{'layer':<24}{'static ms':>10}{'dynamic ms':>12}{'ratio':>8}{'by the clock':>14}")
    rows = {}
    for inside, outside, bins, frames in LAYERS:
        images = torch.randn(args.batch, inside, bins, frames, requires_grad=inside > 1)
        convs = [Conv(inside, outside, (3, 3)), DynamicConv(inside, outside, (3, 3))]
        rows[f"{inside} -> {outside}, {bins} x {frames}"] = step_ms(convs, images, args.seconds)
    rows["sum"] = torch.stack(list(rows.values())).sum(0)
    for name, (static, dynamic) in rows.items():
        ratio, by_clock = (dynamic / static).tolist()
        print(f"{name:<24}{static[0]:>10.1f}{dynamic[0]:>12.1f}{ratio:>8.2f}{by_clock:>14.2f}")


if __name__ == "__main__":
    main()
