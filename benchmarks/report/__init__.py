"""From results to pages, tables and figures."""
