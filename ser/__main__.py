"""``python -m ser`` is ``ser``. With SER_PARENT it ends with the process of that id, which has started it."""

import os
import sys
import time
from threading import Thread

from ser.cli import main


def end_with(parent: int) -> None:
    """End this process when its parent has ended, however that did."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if parent := os.environ.pop("SER_PARENT", None):
    Thread(target=end_with, args=(int(parent),), daemon=True).start()
sys.exit(main())
