# The decoder in a box, as CLIC runs one: no network, no GPU, files in, PNG pictures out.
#
#   docker build -t perco_lite .
#   docker run --rm --network none -v "$PWD/files:/in:ro" -v "$PWD/pictures:/out" perco_lite
#
# What is run is docker/decode; behind the image's name come its folders and options of
# `perco decompress`: … perco_lite /in /out --steps 20
# Its identity is the image's digest (docker image inspect --format '{{.Id}}' perco_lite) and the
# weights digest in /out/decoder.txt.
FROM python:3.12-slim

# torch without a GPU is a tenth of the download
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 MPLCONFIGDIR=/tmp

RUN pip install --extra-index-url "$TORCH_INDEX" "$TORCH"
WORKDIR /perco_lite
COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY data ./data
COPY perco_lite ./perco_lite
RUN pip install --extra-index-url "$TORCH_INDEX" "$TORCH" .
COPY docker/decode /usr/local/bin/decode

# nothing is written but into /out and /tmp
RUN useradd --create-home decoder && mkdir /in /out && chown decoder /out
USER decoder
WORKDIR /tmp
ENTRYPOINT ["decode"]
CMD ["/in", "/out"]
