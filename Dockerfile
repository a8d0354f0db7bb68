# The README's install in an image that runs on CPU and on CUDA: torch's wheels bring their own CUDA libraries, the
# host brings the driver.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 ser && mkdir -p /data /runs /home/ser/.cache && chown -R ser /data /runs /home/ser
WORKDIR /home/ser/app

# The install is a layer of its own: configs and sweeps change more often.
COPY --chown=ser pyproject.toml constraints.txt README.md ./
COPY --chown=ser ser ser
RUN pip install --no-cache-dir -c constraints.txt .
COPY --chown=ser configs configs
COPY --chown=ser sweeps sweeps

USER ser
ENV XDG_CACHE_HOME=/home/ser/.cache
VOLUME ["/data", "/runs", "/home/ser/.cache"]
ENTRYPOINT ["ser"]
CMD ["fit", "--config", "configs/cornn.yaml", "--run.root", "/runs"]
