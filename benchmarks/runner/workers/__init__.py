"""Jobs side by side, each in processes of its own."""
