"""Serin: a progressive-delivery canary controller for Kubernetes."""
