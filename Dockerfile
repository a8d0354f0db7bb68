# The README's install in an image that runs on the CPU and on CUDA: torch's wheels bring CUDA's libraries, the host
# brings the driver. docs/container.md says how to build and run it.
FROM python:3.11-slim

WORKDIR /opt/ser
# Of ser itself the install reads only the version, so its layer, 5.7 GB, outlives changes of the code.
COPY pyproject.toml constraints.txt ./
COPY ser/__init__.py ser/
# Whoever --user names may write to the volumes; runs/ is where the README's commands keep and look for runs.
RUN pip install --no-cache-dir -c constraints.txt -e . \
    && useradd --uid 1000 --home-dir /cache --no-create-home ser \
    && install -d -m 1777 /data /runs /cache \
    && ln -s /runs runs
COPY --chmod=755 . .

# --user may be somebody without home and name, and torch asks for a name. The NVIDIA runtime reads the last two where
# nobody says --gpus.
ENV HOME=/cache XDG_CACHE_HOME=/cache USER=ser PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
VOLUME ["/data", "/runs", "/cache"]
ENTRYPOINT ["ser"]
CMD ["fit", "--config", "configs/cornn.yaml"]
