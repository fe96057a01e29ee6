"""Shared by both HTTP services: application, authentication, metrics, server."""
