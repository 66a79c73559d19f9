# vfl with CUDA, for a machine with an NVIDIA driver and the NVIDIA container toolkit:
#
#   docker build --tag vfl .
#   docker run --rm --gpus all --volume "$PWD:/work" --volume "$HOME/.cache/huggingface:/cache" vfl locate MODEL --out runs/map
#
# PyTorch brings its own CUDA libraries. The toolkit is for what compiles kernels when it runs (DeepSpeed, Triton), so its
# version is that which the pinned PyTorch was built for: python -c "import torch; print(torch.version.cuda)".
ARG CUDA=13.2.0
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH HF_HOME=/cache PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/venv

WORKDIR /opt/vfl
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY vfl vfl
RUN pip install '.[train,deepspeed,select,quantized]' --constraint constraints.txt
COPY train train
COPY select select
COPY recipes recipes

WORKDIR /work
ENTRYPOINT ["vfl"]
CMD ["--help"]
