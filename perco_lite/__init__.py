"""perco_lite: a course and a codec that rebuild PerCo (Careil et al., ICLR 2024)."""

__version__ = "0.1.0"
