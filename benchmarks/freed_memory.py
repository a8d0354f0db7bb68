"""Training step of each system with the memory kept that it frees, against glibc's way of giving it back.

    python benchmarks/freed_memory.py [--systems cnn_lstm cornn] [--rounds 2] [--threads 1]

For each system two processes take turns, one of which calls `ser.cli.memory.keep_freed_memory` as `ser` does; batches
are of the size of its config. Prints milliseconds of the processor per step (the fastest of four counts), the ratio,
and the largest resident memory of both.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"
STEPS = 5


def main() -> None:
    """Print a row for each system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    some = ["cnn2d_lstm", "cnn_lstm", "cornn", "raw_crnn", "td_cnn2d_bilstm"]
    parser.add_argument("--systems", nargs="+", choices=known, default=some, metavar="SYSTEM", help="configs")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each kind")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--keep", choices=["yes", "no"], help="measure the one system in this process")
    options = parser.parse_args()
    if options.keep:
        print(*step_ms(options.systems[0], options.keep == "yes", options.threads))
        return
    print(f"{'system':<24}{'kept ms':>10}{'given back ms':>15}{'ratio':>8}{'MiB':>8}{'MiB':>8}")
    for system in options.systems:
        best: dict[str, tuple[float, float]] = {}
        for _ in range(options.rounds):
            for keep in ("yes", "no"):
                arguments = ["--systems", system, "--threads", str(options.threads), "--keep", keep]
                said = subprocess.check_output([sys.executable, __file__, *arguments], text=True).split()
                best[keep] = min(best.get(keep, (float("inf"), 0.0)), (float(said[0]), float(said[1])))
        (kept, kept_mib), (given, given_mib) = best["yes"], best["no"]
        print(f"{system:<24}{kept:>10.0f}{given:>15.0f}{kept / given:>8.2f}{kept_mib:>8.0f}{given_mib:>8.0f}")


def step_ms(system: str, keep: bool, threads: int) -> tuple[float, float]:
    """Time training steps of a system's network; milliseconds of the processor, and MiB."""
    from ser.cli.memory import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("This C library cannot be told to keep memory.")
    import torch
    from torch.nn.functional import cross_entropy

    import ser.models

    torch.set_num_threads(threads)
    config = yaml.safe_load((CONFIGS / f"{system}.yaml").read_text())
    described = config["model"]["net"]
    network = getattr(ser.models, described["class_path"].rpartition(".")[2])
    net = network(4, **described.get("init_args", {}))
    batch = config["data"]["init_args"].get("batch_size", 32)
    features = torch.randn(batch, *net.feature_shape)
    lengths = torch.full((batch,), net.feature_shape[-1])
    targets = torch.randint(4, (batch,))
    optimizer = torch.optim.Adam(weight for weight in net.parameters() if weight.requires_grad)
    taken = []
    for _ in range(STEPS):
        start = time.process_time()
        optimizer.zero_grad()
        cross_entropy(net(features, lengths), targets).backward()
        optimizer.step()
        taken.append(1000 * (time.process_time() - start))
    return min(taken[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
