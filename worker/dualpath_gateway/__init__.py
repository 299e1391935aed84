"""CPU process: OpenAI API and the central scheduler, which holds state and asks dualpath_policy."""
