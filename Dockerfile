# millpond, by default as a server; docs/serve.md says how to build and run it.
#
#   docker build -t millpond --build-arg TORCH_INDEX=URL .    CPU; URL of PyTorch's CPU wheels
#   docker build -t millpond:cuda --build-arg CUDA=1 .        NVIDIA GPUs, x86-64
#
# No Docker engine has built or run this file yet.

FROM python:3.11-slim AS build

# CUDA=1 takes the gpu extra instead of the cpu extra.
ARG CUDA=
# Where pip finds torch. If empty, where it finds everything else; on x86-64 that torch has CUDA:
# it runs on CPUs too and takes gigabytes more.
ARG TORCH_INDEX=

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/millpond
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
# What embedder/engine/fused.c is compiled with (docs/speed.md).
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# torch by itself first, so that a change of our code does not fetch it again. TORCH_INDEX gives
# torch alone; what it needs comes with the rest.
RUN /opt/millpond/bin/pip install -c constraints.txt \
        ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} torch
COPY millpond.py ./
COPY retrieval retrieval
COPY embedder embedder
COPY indexes indexes
COPY benchmarks benchmarks
COPY cli cli
RUN if [ -n "$CUDA" ]; then faiss=gpu; else faiss=cpu; fi \
    && /opt/millpond/bin/pip install -c constraints.txt ".[$faiss,qdrant,serve]"

FROM python:3.11-slim

RUN useradd --create-home --uid 10001 millpond \
    && mkdir -p /home/millpond/.cache /indexes \
    && chown millpond: /home/millpond/.cache /indexes
COPY --from=build /opt/millpond /opt/millpond
# The last two are read by NVIDIA's container runtime and by nothing else.
ENV PATH=/opt/millpond/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER millpond
WORKDIR /indexes
# The base model is fetched into the first on first use.
VOLUME ["/home/millpond/.cache", "/indexes"]
EXPOSE 8400
STOPSIGNAL SIGTERM
# The first start fetches and loads a model, so failures count after ten minutes only.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8400/health', timeout=8)"]
ENTRYPOINT ["millpond"]
# 0.0.0.0 is the container's own network; which part of the host sees it, docker run -p decides.
CMD ["serve", "--host", "0.0.0.0"]
