"""The two engines: what they do with an attempt, and the threads that compute."""
