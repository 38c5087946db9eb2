"""A request as one paragraph, and where its model run takes place."""
