# docker build -t dpconvert .
# docker run --rm --gpus all -v "$PWD:/data" -w /data dpconvert mtrain fit --shards shards/
# Add --shm-size 1g (or --ipc=host) to train on several GPUs: NCCL uses shared memory.
FROM python:3.12-slim

RUN useradd --create-home user
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY dpconvert dpconvert
COPY mtrain mtrain
COPY manifests manifests
RUN pip install --no-cache-dir --constraint constraints.txt '.[train,timm]' && rm -rf /src
USER user
WORKDIR /data
CMD ["dpconvert", "--help"]
