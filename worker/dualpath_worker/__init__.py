"""Engine processes: models, batching, block buffers, storage, transfers, NIC reports."""
