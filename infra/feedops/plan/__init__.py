"""What a rate of requests needs: environments, quotas, parameters, and the bill."""
