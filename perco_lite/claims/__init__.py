"""Which of the paper's claims hold."""
