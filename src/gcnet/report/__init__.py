"""What people see: pages, figures, tables and pictures of what the rooms below have measured."""
