"""Captures in Wireshark and tshark: a dissector generated from `xenintro.abi`, its colours, where they go."""
