"""``ser cache``: lists the caches of features, and removes old ones."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs
from rich.console import Console

from ser.cli.arguments import ArgumentParser
from ser.errors import UserError
from ser.features.inventory import StoredCache, stored_caches
from ser.terminal.streams import print_json
from ser.terminal.tables import PlainTable


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "cache" and its options.

    Raises:
        UserError: Bad input.
    """
    parser = ArgumentParser(
        "cache",
        "List the caches of features, the last used first; or remove some. A removed cache is built again when a run "
        "needs it.",
    )
    parser.add_argument(
        "--cache_dir", type=Path, help="the cache folder, as in --data.cache_dir; the user's if left out"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="how to print it (default: text)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--remove", nargs="+", metavar="ID", help="remove these")
    which.add_argument("--older_than_days", type=float, metavar="N", help="remove caches unused for N days")
    which.add_argument("--all", action="store_true", help="remove all")
    options = parser.parse_args(args[1:])

    cache_dir = options.cache_dir or platformdirs.user_cache_path("ser")
    if options.cache_dir is not None and not cache_dir.is_dir():
        raise UserError(f"There is no folder {cache_dir}; give the --data.cache_dir of a run.")
    caches = stored_caches(cache_dir)
    chosen = _chosen(caches, options)
    if chosen is None:
        _print(caches, cache_dir, options.format)
        return
    for cache in chosen:
        cache.remove()
    freed = sum(cache.size_bytes for cache in chosen)
    print(f"Removed {len(chosen)} of {len(caches)} feature caches in {cache_dir}: {_mebibytes(freed)} freed.")


def _chosen(caches: Sequence[StoredCache], options: argparse.Namespace) -> list[StoredCache] | None:
    """Return the caches to be removed, or None to list them."""
    if options.all:
        return list(caches)
    if options.older_than_days is not None:
        if not options.older_than_days >= 0:  # neither is NaN
            raise UserError(f"--older_than_days is {options.older_than_days}; it must be a number of days, 0 or more.")
        return [cache for cache in caches if cache.unused_days >= options.older_than_days]
    if options.remove is None:
        return None
    known = {cache.id: cache for cache in caches}
    unknown = [name for name in options.remove if name not in known]
    if unknown:
        valid = f"there are {', '.join(known)}" if known else "there are none"
        raise UserError(f"There is no feature cache {', '.join(unknown)}; {valid}.")
    return [known[name] for name in dict.fromkeys(options.remove)]


def _print(caches: Sequence[StoredCache], cache_dir: Path, form: str) -> None:
    if form == "json":
        print_json([_plain(cache) for cache in caches])
        return
    if not caches:
        print(f"No feature caches in {cache_dir}.")
        return
    table = PlainTable(["id", "features"], ["recordings", "size", "unused for"])
    for cache in caches:
        table.add_row(
            cache.id, _features(cache), str(cache.rows), _mebibytes(cache.size_bytes), f"{cache.unused_days:.0f} days"
        )
    Console().print(table)
    total = sum(cache.size_bytes for cache in caches)
    print(f"{_mebibytes(total)} in {cache_dir}. Remove some with --remove ID, --older_than_days N or --all.")


def _plain(cache: StoredCache) -> dict[str, Any]:
    return {
        "id": cache.id,
        "settings": cache.settings,
        "recordings": cache.rows,
        "size_bytes": cache.size_bytes,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(cache.last_used)),
    }


def _features(cache: StoredCache) -> str:
    """Describe the features in a line: the class and every setting."""
    features = cache.settings.get("features")
    if not features:
        return "(unfinished or damaged)"
    settings = {**features["init_args"], **cache.settings.get("preprocess", {})}
    return f"{features['class_path'].rpartition('.')[2]}: {', '.join(f'{k}={v}' for k, v in settings.items())}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
