"""What a network is to a method: its passes, blocks, precision, backbone and conditions."""
