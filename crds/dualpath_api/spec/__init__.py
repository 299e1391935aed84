"""The sections of a DualPathCluster spec, one module a subject; `dualpath_api.cluster` puts them together."""
