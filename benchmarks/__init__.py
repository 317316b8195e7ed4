"""What the filter costs and what it saves, measured beside the same thing without it."""
