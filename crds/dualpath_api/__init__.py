"""The contract: cluster spec, wire messages, block keys, units and errors. Pydantic and msgspec only."""
