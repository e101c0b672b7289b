"""The scripted server and connections to it, as the tests of `cluster` have them."""

from tests.unit.cluster.conftest import api, authority, connect_to, environment, kubeconfig, notes, scope, tls

__all__ = ["api", "authority", "connect_to", "environment", "kubeconfig", "notes", "scope", "tls"]
