"""What is compared: perco and its parts, classical, external and learned codecs."""

DEFAULT_CODECS = ("perco", "autoencoder", "perco-estimate", "jpeg", "jpeg2000", "webp", "avif")
DEFAULT_CODECS += ("jpeg2000-shrunk", "webp-shrunk", "avif-shrunk")
