"""Tables, plots and pages for people to read. Import each by its module: they need different packages."""
