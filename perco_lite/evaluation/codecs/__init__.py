"""What is compared: perco and its parts, classical, external and learned codecs."""
