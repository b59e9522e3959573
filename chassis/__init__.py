"""How any ION service process runs: settings, errors, servers, channels, telemetry. Knows no service by name."""
