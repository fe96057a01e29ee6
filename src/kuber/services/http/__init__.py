"""What both HTTP services share: application, authentication, metrics, server."""
