"""What a person reads: tables, plots and pages. Import them by module: each needs other packages."""
