# The README's install in an image that runs on the CPU and on CUDA: torch's wheels bring CUDA's libraries, the host
# brings the driver. docs/container.md says how to build and run it.
FROM python:3.11-slim

WORKDIR /opt/ser
# Of ser itself the install reads only the version, so its layer, 5.7 GB, outlives changes of the code.
COPY pyproject.toml constraints.txt ./
COPY ser/__init__.py ser/
# Any user of --user may write to the volumes; runs/ is where the README's commands keep and look for runs.
RUN pip install --no-cache-dir -c constraints.txt -e . \
    && useradd --uid 1000 --home-dir /cache --no-create-home ser \
    && install -d -m 1777 /data /runs /cache \
    && ln -s /runs runs
COPY --chmod=755 . .

# The user of --user may have no home and no name, and torch asks for a name. The NVIDIA runtime reads the last two
# without --gpus.
ENV HOME=/cache XDG_CACHE_HOME=/cache NUMBA_CACHE_DIR=/cache/numba USER=ser PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# librosa as Numba compiles it for its first recording, which takes 20 s. A new volume begins with it.
RUN python -c "import librosa, numpy; librosa.effects.trim(numpy.ones(4096))" && chmod -R a+rwX /cache/numba
USER 1000
VOLUME ["/data", "/runs", "/cache"]
ENTRYPOINT ["ser"]
CMD ["fit", "--config", "configs/cornn.yaml"]
