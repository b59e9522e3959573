"""What telemetry costs, and what becomes of requests where nobody takes it."""
