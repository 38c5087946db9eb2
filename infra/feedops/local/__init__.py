"""Lambda, API Gateway and AWS on this machine."""
