"""torch and Triton ops of the data path; one op a file: reference, kernel, checked wrapper."""
