"""Loading of published weights and files of other tools, whatever their parameter names."""
