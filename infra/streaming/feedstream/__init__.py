"""A Lambda function that keeps the rows of a live store up to date."""
