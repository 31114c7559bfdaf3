"""One domain, watched for as long as the service runs: configuration, control socket, metrics."""
