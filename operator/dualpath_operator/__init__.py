"""The Kubernetes operator: reconciles DualPathCluster objects into Pods that serve."""
