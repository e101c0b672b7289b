"""Where logs come from. Each source turns its input into named byte streams and says honestly where one was cut."""
